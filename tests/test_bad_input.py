"""Bad input gets a message that says what was expected, what came, and what to do; nothing is lost or left over.

Each line of the list has its test here, against the Python interface that magics and command line call. Damaged
files and stores, and versions from the future, are in test_artifacts.py and test_runs.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbopt.comparison import Comparison
from nbopt.errors import DataError, ModelError, NbOptError, NbOptWarning, OptionError, StoreError
from nbopt.loop import optimize
from nbopt.recipe import Recipe
from nbopt.runs import RunStore
from nbopt.techniques import all_techniques
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models
from tests.conftest import ROOT, Digits
from tests.processes import workers
from tests.test_runs import Filled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 60)


def model() -> nn.Module:
    torch.manual_seed(0)
    return models.mlp(6, 3, 8)


def told(error: NbOptError) -> str:
    """Check that all three parts are there, and return the message."""
    assert error.expected, error
    assert error.came, error
    assert error.do, error
    return str(error)


@pytest.fixture(autouse=True)
def _nothing_left_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever went wrong, no temporary folder and no process stays behind."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield
    assert workers() == []
    # The rows of a workload that still lives may stay, and so may torch's own cache and the lock's file.
    allowed = ("nbopt-split-", "nbopt-measuring.lock", "torchinductor_")
    assert [path.name for path in scratch.iterdir() if not path.name.startswith(allowed)] == []


# Models


def state_dict() -> Any:
    return model().state_dict()


def estimator() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


@pytest.mark.parametrize(
    ("make", "came", "do"),
    [
        (lambda: nn.Linear, "the class Linear", "call it"),
        (state_dict, "state_dict", "load_state_dict"),
        (lambda: "model.pt", "a str", "load it first"),
        (lambda: Path("model.keras"), "PosixPath", "load it first"),
        (estimator, "LogisticRegression", "pass the model object"),
        (lambda: None, "NoneType", "pass the model object"),
        (lambda: model().forward, "method", "pass the model object"),
    ],
)
def test_not_a_model(make: Callable[[], Any], came: str, do: str) -> None:
    with pytest.raises(ModelError) as caught:
        Workload(make(), valid=(X, Y))
    assert came in caught.value.came
    assert do in caught.value.do
    assert "a torch.nn.Module, a keras.Model or a tf_keras.Model" in told(caught.value)


def test_a_model_in_training_mode_is_measured_as_in_evaluation_and_left_in_training() -> None:
    training = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.9)).train()
    with pytest.warns(NbOptWarning, match="training mode"):
        work = Workload(training, valid=(X, Y))
    result = optimize(work, runtimes="torch", threads=1)
    assert all(module.training for module in training.modules())
    expected = (training.eval()(torch.from_numpy(X)).argmax(1).numpy() == Y).mean()
    assert result["baseline/torch"].quality == pytest.approx(expected, abs=1e-12)


# Data


@pytest.mark.parametrize("train", [None, (X, Y)])
def test_no_valid_data(train: Any) -> None:
    with pytest.raises(DataError) as caught:
        Workload(model(), train=train)
    assert "--valid" in told(caught.value)


EMPTY: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X[:0], Y[:0]),
    "a list": list,
    "a loader": lambda: DataLoader(TensorDataset(torch.ones(5, 6), torch.ones(5)), batch_size=8, drop_last=True),
    "a function": lambda: lambda: iter(()),
}


@pytest.mark.parametrize("form", EMPTY)
def test_a_loader_that_yields_nothing(form: str) -> None:
    with pytest.raises(DataError) as caught:
        Workload(model(), valid=EMPTY[form]())
    assert "drop_last" in told(caught.value)


def test_train_data_that_yields_nothing() -> None:
    work = Workload(model(), train=EMPTY["a loader"](), valid=(X, Y))
    with pytest.raises(DataError) as caught:
        optimize(work, Prune(), runtimes="torch", threads=1)
    assert "train data with at least one row" in told(caught.value)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_generator_that_is_exhausted_after_one_pass(split: str) -> None:
    data: dict[str, Any] = {"valid": (X, Y), split: ((X, Y) for _ in range(3))}
    with pytest.raises(DataError) as caught:
        Workload(model(), **data)
    assert f"{split}=list(batches)" in told(caught.value)


def test_single_rows_instead_of_batches() -> None:
    with pytest.raises(DataError) as caught:
        Workload(model(), valid=TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)))
    assert "DataLoader(dataset, batch_size" in told(caught.value)


@pytest.mark.parametrize("x", [X[:, :5], X.reshape(60, 2, 3), X[:, 0]])
def test_wrong_input_shape(x: Any) -> None:
    with pytest.raises(ModelError) as caught:
        Workload(model(), valid=(x, Y))
    assert str(x.shape) in told(caught.value)


LABELS: dict[str, tuple[Any, str]] = {
    "too high": (np.where(Y == 2, 3, Y), "labels from 0 to 2"),
    "negative": (np.where(Y == 2, -1, Y), "labels from 0 to 2"),
    "from one": (Y + 1, "renumber the labels from 0"),
    "of another number of rows": (Y[:50], "as many labels as rows"),
    "strings": (np.array(["cat", "dog", "owl"])[Y], "encode classes as whole numbers"),
    "fractions": (Y + 0.5, "whole numbers"),
    "NaN": (np.where(Y == 2, np.nan, Y), "NaN"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_out_of_range_or_of_the_wrong_type(case: str) -> None:
    labels, message = LABELS[case]
    with pytest.raises(DataError) as caught:
        optimize(Workload(model(), valid=(X, labels), loss=nn.CrossEntropyLoss()), runtimes="torch", threads=1)
    assert message in told(caught.value)
    assert RunStore().runs() == []


def test_labels_of_train_out_of_range() -> None:
    work = Workload(model(), train=(X, np.where(Y == 2, 7, Y)), valid=(X, Y))
    with pytest.raises(DataError) as caught:
        optimize(work, Prune(), runtimes="torch", threads=1)
    assert "from 0 to 7" in told(caught.value)
    assert [run.name for run in caught.value.comparison] == ["baseline/torch"]


@pytest.mark.parametrize("metric", ["auc", "average_precision"])
def test_one_class_only_with_auc(metric: str) -> None:
    binary = models.mlp(6, 1, 8)
    work = Workload(binary, valid=(X, np.zeros(60)), metric=metric, loss=nn.BCEWithLogitsLoss())
    with pytest.raises(DataError) as caught:
        optimize(work, runtimes="torch", threads=1)
    assert "rows of both classes" in told(caught.value)


def test_nan_in_data() -> None:
    work = Workload(model(), valid=(np.where(X > 2, np.nan, X), Y))
    with pytest.raises(DataError) as caught:
        optimize(work, runtimes="torch", threads=1)
    assert "first in row" in told(caught.value)


def test_nan_in_train_data() -> None:
    work = Workload(model(), train=(np.where(X > 2, np.nan, X), Y), valid=(X, Y))
    with pytest.raises(DataError) as caught:
        optimize(work, Prune(), runtimes="torch", threads=1)
    assert "check train for NaN" in told(caught.value)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("nan", ModelError, "NaN in 60 of 60 rows of the first valid batch"),
        ("inf", DataError, "NaN or infinity in 60 of 60 rows"),
    ],
)
def test_outputs_that_are_no_numbers(value: str, error: type[NbOptError], message: str) -> None:
    broken = model()
    with torch.no_grad():
        broken[2].bias[1] = float(value)  # type: ignore[index]
    with pytest.raises(error) as caught:
        optimize(Workload(broken, valid=(X, Y)), runtimes="torch", threads=1)
    assert message in told(caught.value)


# Words and numbers


@pytest.mark.parametrize(
    "line",
    [word for word, technique in all_techniques().items() if technique.needs_train]
    + ["quantize --method qat", "prune --pattern 2:4 --structured", "prune --importance taylor"],
)
def test_what_can_not_be_is_told_before_anything_is_measured(line: str, home: Path) -> None:
    with pytest.raises((DataError, OptionError)) as caught:
        optimize(Workload(model(), valid=(X, Y)), line)
    told(caught.value)
    assert not caught.value.comparison
    assert not (home / "runs.sqlite").exists()


def test_an_option_of_the_line_in_a_recipes_text_names_the_argument() -> None:
    work = Workload(model(), valid=(X, Y))
    with pytest.raises(OptionError) as caught:
        optimize(work, "prune --structured --max-latency 2ms")
    assert "max_latency=" in told(caught.value)


@pytest.mark.parametrize(
    ("line", "do"),
    [
        ("quantise", "did you mean 'quantize'"),
        ("prune --sparsty 0.5", "--sparsity"),
        ("quantize --dtype int9", "did you mean 'int8'"),
        ("quantize --method statik", "did you mean 'static'"),
    ],
)
def test_an_unknown_technique_or_option(line: str, do: str) -> None:
    with pytest.raises(OptionError) as caught:
        Recipe.parse(line)
    assert do in told(caught.value)


def test_an_unknown_metric() -> None:
    with pytest.raises(OptionError) as caught:
        optimize(Workload(model(), valid=(X, Y), metric="acuracy"), runtimes="torch")
    assert "did you mean 'accuracy'" in told(caught.value)


@pytest.mark.parametrize("sparsity", [0, 1, 1.5, -0.5, "half", None, True, float("nan"), float("inf")])
def test_sparsity_that_is_no_share(sparsity: Any) -> None:
    with pytest.raises(OptionError) as caught:
        Prune(sparsity=sparsity)
    assert "--sparsity" in told(caught.value)


@pytest.mark.parametrize("text", ["0", "1", "1.5", "half", "0%", "100%"])
def test_sparsity_in_a_line(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        Recipe.parse(f"prune --sparsity {text}")
    assert "--sparsity" in told(caught.value)


# Places


@pytest.mark.parametrize("place", ["/proc/nbopt", "/sys/nbopt"])
def test_a_read_only_folder_is_told_before_any_work(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBOPT_HOME", place)
    with pytest.raises(StoreError) as caught:
        optimize(Workload(model(), valid=(X, Y)), runtimes="torch", threads=1)
    assert "NBOPT_HOME" in told(caught.value)
    assert place in str(caught.value)


def test_a_store_that_fills_up_half_way_loses_no_row(
    comparison: Comparison, workload: Workload, store: RunStore, digits: Digits
) -> None:
    before = store.runs()
    with pytest.raises(StoreError) as caught:
        optimize(workload, Quantize(), runtimes="onnxruntime", threads=1, store=Filled(store.home))
    assert "room on the disk" in told(caught.value)
    rows = caught.value.comparison
    assert [run.name for run in rows] == ["baseline/torch", "baseline/onnxruntime", "quantize/onnxruntime"]
    assert rows["quantize/onnxruntime"].quality > 0.8
    assert rows["quantize/onnxruntime"].predict(digits.x[:2]).shape == (2, 10)
    assert store.runs() == before


DISK = """
    import os, sys
    import numpy as np, torch, nbopt
    from nbopt.errors import StoreError
    home, what = sys.argv[1:]
    os.environ["NBOPT_HOME"] = home
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    rng = np.random.default_rng(0)
    data = rng.normal(size=(100, 8)).astype("float32"), rng.integers(0, 3, 100)
    work = nbopt.Workload(model, train=(data[0][:50], data[1][:50]), valid=(data[0][50:], data[1][50:]))

    def fill():
        with open(os.path.join(home, "filler"), "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(512))
            except OSError:
                return

    def make_read_only():
        os.system(f"mount -o remount,ro {os.path.dirname(home)}")

    def tell(progress):
        if progress.what == "measured":
            {"full": fill, "read-only": make_read_only}[what]()

    try:
        nbopt.optimize(work, nbopt.Quantize(), runtimes="onnxruntime", threads=1, progress=tell)
    except StoreError as error:
        print(error)
        print("rows:", *(run.name for run in error.comparison))
        print("export:", end=" ")
        try:
            error.comparison["baseline/torch"].export(os.path.join(home, "copy.pt"))
        except StoreError as export:
            print(type(export).__name__)
    kept = nbopt.RunStore().runs()
    print("kept:", *(run.name for run in kept))
    print("predicts:", kept[0].predict(data[0][:2]).shape)
    print("files:", *sorted(name for name in os.listdir(home) if not name.startswith("runs.sqlite")))
"""


def own_mounts() -> list[str]:
    """Return a command's beginning that gives it mounts of its own: as root, in a user namespace, or by sudo."""
    if os.getuid() == 0:
        return ["unshare", "--mount"]
    mapped = ["unshare", "--map-root-user", "--mount"]
    allowed = subprocess.run([*mapped, "true"], capture_output=True, check=False).returncode == 0
    return mapped if allowed else ["sudo", "--non-interactive", "unshare", "--mount"]


def on_a_disk_of_its_own(tmp_path: Path, script: str, what: str) -> str:
    """Run a script on a real, tiny file system of its own, in a mount namespace that goes with it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f'mount -t tmpfs -o size=2m tmpfs "{disk}" && exec "$@"'
    command = [*own_mounts(), "sh", "-c", inside, "sh", "env", f"PYTHONPATH={ROOT}", f"HOME={tmp_path}"]
    command += [sys.executable, "-c", textwrap.dedent(script), str(disk / "home"), what]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("what", "message"), [("full", "room on the disk"), ("read-only", "can be written")])
def test_a_disk_that_is_full_or_read_only_half_way_loses_no_row(tmp_path: Path, what: str, message: str) -> None:
    out = on_a_disk_of_its_own(tmp_path, DISK, what)
    assert message in out
    assert "NBOPT_HOME" in out
    assert "rows: baseline/torch\n" in out
    assert "kept: baseline/torch\n" in out
    assert "predicts: (2, 3)" in out
    assert "export: StoreError" in out
    assert out.splitlines()[-1].split()[1:] == (["artifacts", "filler"] if what == "full" else ["artifacts"])


LIMITED = """
    import resource, sys
    import numpy as np, torch, nbopt
    from nbopt.errors import StoreError
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 3).eval()
    data = np.ones((50_000, 8), "float32"), np.arange(50_000) % 3
    work = nbopt.Workload(model, train=data, valid=data)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
    try:
        nbopt.optimize(work, runtimes="torch", threads=1)
    except StoreError as error:
        print(error)
"""


def test_a_full_temporary_folder_is_told(run_python: Callable[..., subprocess.Popen[str]]) -> None:
    out, errors = run_python(LIMITED).communicate(timeout=120)
    assert errors == ""
    assert "expected: " in out
    assert "do: free some space" in out
