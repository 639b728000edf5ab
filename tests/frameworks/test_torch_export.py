"""What is exported of a torch model: for any number of rows, with nothing of the user's in it, and by value or name."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from nbopt.errors import ExportError, ModelError
from nbopt.frameworks import Signature, framework_of
from nbopt.frameworks._torch_export import onnx_graph
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.frozen import Leaf
from nbopt.runtimes import Manifest, runtime_named
from tests import models

RNG = np.random.default_rng(0)


def signature(*inputs: Any, free: tuple[int, ...] = (0,)) -> Signature:
    """Return the signature of positional inputs whose axes `free` vary."""
    shapes = [tuple(None if axis in free else size for axis, size in enumerate(x.shape)) for x in inputs]
    named = tuple(Leaf(f"input_{i}", str(x.dtype), s) for i, (x, s) in enumerate(zip(inputs, shapes, strict=True)))
    return Signature(named, False, tuple(x[:1] for x in inputs))


def exported(model: nn.Module, path: Path, *inputs: Any, **more: Any) -> Any:
    """Return what was written, with the outputs of that file on its own runtime."""
    runtime = {".onnx": "onnxruntime", ".xml": "openvino", ".pt": "torch"}[path.suffix]
    kind = runtime_named(runtime)
    written = FRAMEWORK.export(model, signature(*inputs, **more), path, kind.form)
    manifest = Manifest(runtime, tuple(f"input_{i}" for i in range(len(inputs))), batch=written.batch)
    return written, kind.load(path, manifest, threads=1).run(inputs)


class Last(nn.Module):
    """Take the output of each row's last step, by `len`."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states, _ = self.cells(x)
        return self.head(states[torch.arange(len(x)), lengths - 1])


class Packed(nn.Module):
    """Pack the sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(8, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.head(self.cells(packed)[1][0])


SEQUENCES = RNG.normal(size=(7, 5, 8)).astype(np.float32)
LENGTHS = RNG.integers(1, 6, 7)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_len_of_an_input_leaves_the_number_of_rows_free(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Last().eval()
    written, outputs = exported(model, tmp_path / f"m{suffix}", SEQUENCES, LENGTHS)
    assert written.batch is None
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (SEQUENCES, LENGTHS)), atol=1e-5)


def test_packed_sequences_are_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        exported(Packed().eval(), tmp_path / "m.onnx", SEQUENCES, LENGTHS)
    assert "padded batch" in caught.value.do


def test_a_graph_holds_nothing_of_the_users_source(tmp_path: Path) -> None:
    x = RNG.normal(size=(3, 1, 8, 8)).astype(np.float32)
    exported(models.Cnn().eval(), tmp_path / "m.onnx", x)
    content = (tmp_path / "m.onnx").read_bytes()
    assert str(Path(__file__).parent.parent).encode() not in content
    assert b"stack_trace" not in content
    proto = onnx.load(tmp_path / "m.onnx")
    weights = sum(4 * int(np.prod(t.dims)) for t in proto.graph.initializer)
    assert len(content) < weights + 4000


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_one_length_need_no_loop(mode: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.EmbeddingBag(50, 8, mode=mode), nn.Linear(8, 3)).eval()
    bag = model[0]
    x = RNG.integers(0, 50, (6, 9))
    for suffix in (".onnx", ".xml"):
        _, outputs = exported(model, tmp_path / f"m{suffix}", x)
        np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (x,)), atol=1e-5)
    assert "Loop" not in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert model[0] is bag


class Hashed(nn.Module):
    """Asks a bag for its number of rows and for its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(97, 8)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.bag(numbers % self.bag.num_embeddings), self.bag.weight)


class Doubled(nn.EmbeddingBag):
    """Computes otherwise."""

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(*values)


@pytest.mark.parametrize("make", [Hashed, lambda: nn.EmbeddingBag(97, 8), lambda: nn.Sequential(Doubled(97, 8))])
def test_bags_keep_what_they_are(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model, numbers = make().eval(), RNG.integers(0, 97, (7, 5))
    _, outputs = exported(model, tmp_path / "m.onnx", numbers)
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (numbers,)), atol=1e-5)


def test_bfloat16_is_exported_in_float32_and_said(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.Cnn().bfloat16().eval()
    x = RNG.normal(size=(5, 1, 8, 8)).astype(np.float32)
    for suffix in (".onnx", ".xml"):
        written, outputs = exported(model, tmp_path / f"m{suffix}", x)
        np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (x,)), atol=0.05)
        assert any("float32" in note for note in written.notes)


class Normed(nn.Module):
    """Weights that parametrizations compute."""

    def __init__(self) -> None:
        super().__init__()
        self.first = parametrizations.weight_norm(nn.Linear(6, 16))
        self.second = parametrizations.spectral_norm(nn.Linear(16, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


@pytest.mark.parametrize("suffix", [".pt", ".onnx"])
def test_parametrizations_are_folded_and_the_users_stay(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Normed().eval()
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    before, names = FRAMEWORK.predict(model, (x,)), list(model.state_dict())
    _, outputs = exported(model, tmp_path / f"m{suffix}", x)
    np.testing.assert_allclose(outputs, before, atol=1e-6)
    # deepcopy shares the class that torch makes for a parametrized module: what is done to it shows here.
    np.testing.assert_array_equal(FRAMEWORK.predict(model, (x,)), before)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "parallel"])
def test_what_a_wrapper_holds_is_copied_and_exported(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    inner = models.mlp(6, 3)
    twin = FRAMEWORK.clone(wrap(inner))
    assert type(twin) is nn.Sequential
    assert twin is not inner
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    written, outputs = exported(wrap(inner), tmp_path / "m.pt", x)
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(inner, (x,)), atol=1e-6)
    assert any("without" in note for note in written.notes)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_told() -> None:
    with pytest.raises(ModelError, match="TorchScript"):
        framework_of(torch.jit.trace(models.mlp(6, 3), torch.zeros(1, 6)))


def test_a_model_that_can_not_be_pickled_says_so(tmp_path: Path) -> None:
    class Generating(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            twin = type(self)(2, 2)
            twin.stream = (i for i in range(3))
            return twin

    with pytest.raises(ExportError, match="generator"):
        FRAMEWORK.export(Generating(2, 2), signature(np.zeros((1, 2), np.float32)), tmp_path / "m.pt", "torch")


PACKAGE = """
import _thread
from torch import nn
lock = _thread.allocate_lock()  # what a package keeps in its globals must not matter
class Net(nn.Linear):
    def forward(self, x):
        with lock:
            return super().forward(x)
"""


def test_a_package_that_pip_put_anywhere_is_left_out_of_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "anywhere"
    (folder / "a_package").mkdir(parents=True)
    (folder / "a_package" / "__init__.py").write_text("")
    (folder / "a_package" / "nets.py").write_text(PACKAGE)
    (folder / "a_package-1.0.dist-info").mkdir()
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np; from pathlib import Path\n"
        "from a_package.nets import Net; from tests.frameworks.test_torch_export import exported\n"
        "print(exported(Net(4, 2).eval(), Path(sys.argv[2]), np.zeros((1, 4), np.float32))[1].shape)\n"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path / "m.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.stdout.strip() == "(1, 2)", done.stderr
    assert b"allocate_lock" not in (tmp_path / "m.pt").read_bytes()


PROJECT = {
    "base": "from torch import nn\nfrom sizes import WIDTH\nclass Base(nn.Module):\n  def width(self): return WIDTH",
    "sizes": "WIDTH = 2",
    "ways": "from deeper import twice\ndef scaled(x): return twice(x)",
    "deeper": "def twice(x): return x * 2",
    "locked": "import _thread\nlock = _thread.allocate_lock()\ndef held(x):\n  with lock: return x",
    "nets": """
import deeper
from torch import nn
from base import Base
from locked import held
from ways import scaled
class Own(Base):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(4, self.width())
    def forward(self, x): return scaled(self.line(x))
class Whole(Own):
    def forward(self, x): return deeper.twice(self.line(x))
class Locked(Own):
    def forward(self, x): return held(super().forward(x))
""",
}


def test_code_of_a_users_files_is_in_the_file_or_said_to_be_needed(tmp_path: Path) -> None:
    folder, empty = tmp_path / "project", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    for name, text in PROJECT.items():
        (folder / f"{name}.py").write_text(text)
    script = """
import sys
from pathlib import Path
import cloudpickle, numpy as np
sys.path.insert(0, sys.argv[1])
import nets, sizes
from nbopt.frameworks.torch import FRAMEWORK
from tests.frameworks.test_torch_export import signature
cloudpickle.register_pickle_by_value(sizes)
for kind in (nets.Own, nets.Whole, nets.Locked):
    path = Path(sys.argv[2], f"{kind.__name__}.pt")
    print(FRAMEWORK.export(kind().eval(), signature(np.ones((1, 4), np.float32)), path, "torch").notes)
print(cloudpickle.list_registry_pickle_by_value())
"""
    command = [sys.executable, "-c", script, str(folder), str(empty)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True).stdout
    own, whole, locked, registered = told.splitlines()
    assert own == "()"
    assert whole == "('the file loads only where deeper can be imported',)"
    assert "the file loads only where base, locked, ways can be imported: TypeError: cannot pickle" in locked
    assert registered == "{'sizes'}", "as it was before"
    script = "import pickle, torch; print(pickle.load(open('Own.pt', 'rb'))(torch.ones(1, 4)).shape)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=empty, check=True)
    assert done.stdout.strip() == "torch.Size([1, 2])"


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_change_that_no_tensor_tells_of_is_exported(suffix: str, tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval(), np.ones((1, 4), np.float32)
    exported(model, tmp_path / f"a{suffix}", x)
    model[0].weight.data.fill_(3.0)
    _, outputs = exported(model, tmp_path / f"b{suffix}", x)
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (x,)), rtol=1e-5)
    model[1] = nn.Tanh()
    _, outputs = exported(model, tmp_path / f"c{suffix}", x)
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (x,)), rtol=1e-5)


def test_exports_of_one_piece_of_work_share_a_graph() -> None:
    model, like = nn.Linear(4, 2).eval(), signature(np.ones((1, 4), np.float32))
    with FRAMEWORK.exporting():
        graph = onnx_graph(model, like)
        assert onnx_graph(model, like) is graph
        with torch.no_grad():
            model.weight.mul_(2)
        changed = onnx_graph(model, like)
        assert changed is not graph
    assert onnx_graph(model, like) is not changed


def test_the_export_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.EmbeddingBag(9, 4), nn.Linear(4, 2))
    before = copy.deepcopy(model.state_dict())
    exported(model, tmp_path / "m.onnx", RNG.integers(0, 9, (3, 5)))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Mean(nn.Module):
    """The mean over the steps of a sequence, by way of a recurrent layer or of none."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.cells = kind(8, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cells(x)[0].mean(1) * x.shape[1])


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_sequences_of_any_length_go_through(kind: Any, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mean(kind).eval()
    kernels = [dict(getattr(torch.ops.aten, name).input.py_kernels) for name in ("lstm", "gru")]
    written, _ = exported(model, tmp_path / f"m{suffix}", SEQUENCES, free=(0, 1))
    assert [dict(getattr(torch.ops.aten, name).input.py_kernels) for name in ("lstm", "gru")] == kernels
    runtime = {".onnx": "onnxruntime", ".xml": "openvino"}[suffix]
    session = runtime_named(runtime).load(written.path, Manifest(runtime, ("input_0",)), threads=1)
    for rows, steps in ((3, 9), (1, 2), (7, 5)):
        x = RNG.normal(size=(rows, steps, 8)).astype(np.float32)
        np.testing.assert_allclose(session.run((x,)), FRAMEWORK.predict(model, (x,)), atol=1e-5)


def test_a_length_that_the_code_fixes_is_told(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="axis 1 of input_0") as caught:
        exported(Mean(nn.RNN).eval(), tmp_path / "m.onnx", SEQUENCES, free=(0, 1))
    assert "pad every batch" in caught.value.do


class Tables(nn.Module):
    """Take two inputs by names that operations of ONNX have too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(7, 2)

    def forward(self, cat: torch.Tensor, linear: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.embed(cat), linear], 1)) * 2


def test_inputs_may_have_the_names_of_operations(tmp_path: Path) -> None:
    model = Tables().eval()
    inputs = {"cat": RNG.integers(0, 5, 6), "linear": RNG.normal(size=(6, 3)).astype(np.float32)}
    named = tuple(Leaf(name, str(x.dtype), (None, *x.shape[1:])) for name, x in inputs.items())
    described = Signature(named, True, {name: x[:1] for name, x in inputs.items()})
    FRAMEWORK.export(model, described, tmp_path / "model.onnx", "onnx")
    session = runtime_named("onnxruntime").load(
        tmp_path / "model.onnx", Manifest("onnxruntime", tuple(inputs), keyed=True), threads=1
    )
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(x) for name, x in inputs.items()}).numpy()
    np.testing.assert_allclose(session.run(inputs), expected, atol=1e-6)


def test_attention_in_windows_goes_to_onnx(tmp_path: Path) -> None:
    from transformers import SwinConfig, SwinForImageClassification

    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2], "num_heads": [2], "window_size": 4}
    model = SwinForImageClassification(SwinConfig(num_labels=3, **sizes)).eval()
    images = RNG.normal(size=(5, 3, 32, 32)).astype(np.float32)
    _, outputs = exported(model, tmp_path / "model.onnx", images)
    np.testing.assert_allclose(outputs, FRAMEWORK.predict(model, (images,)), atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("window", [2, 7, 9, (9, 3)])
def test_windows_wider_than_the_image_are_cut_off(window: Any, suffix: str, tmp_path: Path) -> None:
    """As Hugging Face's EfficientNet ends, with 1280 by 1280 over 7 by 7."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(window, ceil_mode=True), nn.Flatten()).eval()
    x = RNG.standard_normal((5, 3, 7, 7)).astype("float32")
    _, output = exported(model, tmp_path / f"model{suffix}", x)
    with torch.no_grad():
        np.testing.assert_allclose(output, model(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_what_the_exporter_refuses_is_told_by_its_cause_not_by_its_step(tmp_path: Path) -> None:
    class Solves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x @ x.transpose(1, 2)).abs()

    x = RNG.normal(size=(2, 3, 3)).astype(np.float32)
    with pytest.raises(ExportError, match=r"no ONNX function for aten.linalg_eig \(in Solves.forward\)") as caught:
        exported(Solves(), tmp_path / "model.onnx", x)
    assert "\x1b" not in str(caught.value)
    inside = nn.Sequential(nn.Identity(), nn.ModuleDict({"eigen": Solves()})["eigen"])
    with pytest.raises(ExportError, match=r"\(in layer 1, a Solves\)"):
        exported(inside, tmp_path / "model.onnx", x)
