"""Pitfalls of model optimization, each on a real model: the table names what happened and never praises it."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.draft import Context, Draft, Lowered
from nbopt.errors import DataError
from nbopt.frameworks import Exported, Signature
from nbopt.loop import optimize
from nbopt.measurement import measure
from nbopt.render import run_sentence
from nbopt.runs import Run, RunStore
from nbopt.runtimes import Runtime
from nbopt.technique import Technique
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests.conftest import Digits

Array = np.ndarray[Any, Any]
QUIET = ("busy", "inconclusive")


def told(run: Run) -> str:
    """Return all that a reader is told of a run."""
    return " ".join([run.verdict, run.reason, *run.notes, run_sentence(run)])


def test_zeros_that_make_nothing_faster_are_not_praised(trained_cnn: Any, digits: Digits, store: RunStore) -> None:
    x, y = digits.test
    work = Workload(trained_cnn, test=(x.reshape(-1, 1, 8, 8), y))
    # In full: of pairs of equal speed a quick measurement calls a few in a hundred different.
    found = optimize(
        work, Prune(sparsity=0.5, epochs=0), runtimes=["onnxruntime"], threads=1, measure="full", store=store
    )
    run = found["prune/onnxruntime"]
    assert run.verdicts["technique"] in {"same", *QUIET}
    assert run.verdicts["size"] == "same" or run.size_bytes == pytest.approx(run.size_bytes)
    assert "dense kernels are not faster" in told(run)
    assert run.audit["zeros"] / run.audit["weights"] == pytest.approx(0.5, abs=0.02)


@dataclass(frozen=True)
class LastLayerOnly(Technique):
    """Quantize the last layer and report success, as some quantizers do."""

    word: ClassVar[str] = "lastlayer"

    def apply(self, draft: Draft, context: Context) -> Draft:
        return draft.with_(lower=(*draft.lower, LastLayer()), dtype="int8")


@dataclass(frozen=True)
class LastLayer:
    """The step on the ONNX graph."""

    def refuses(self, runtime: Runtime) -> str:
        return "" if runtime.form == "onnx" else "only ONNX"

    def __call__(
        self, model: Any, signature: Signature, source: Exported, runtime: Runtime, folder: Path, context: Context
    ) -> Lowered:
        import onnx
        from onnxruntime import quantization

        nodes = [n.name for n in onnx.load(source.path).graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
        target = folder / "model.onnx"
        rows, _ = context.workload.calibration(8, context.rng())
        feeds = iter([dict(zip(signature.names, row, strict=True)) for row in rows])
        reader = type("Rows", (quantization.CalibrationDataReader,), {"get_next": lambda self: next(feeds, None)})()
        quantization.quantize_static(source.path, target, reader, nodes_to_quantize=nodes[-1:])
        return Lowered(Exported(target, source.batch), "int8")


def test_a_quantizer_that_touched_only_the_last_layer_is_named(
    trained_cnn: Any, digits: Digits, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (x, y), (x_train, y_train) = digits.test, digits.train
    work = Workload(trained_cnn, train=(x_train.reshape(-1, 1, 8, 8), y_train), test=(x.reshape(-1, 1, 8, 8), y))
    monkeypatch.setattr("nbopt.recipe.technique_text", lambda step: step.word)
    run = optimize(work, LastLayerOnly(), runtimes=["onnxruntime"], threads=1, store=store)["lastlayer/onnxruntime"]
    assert run.reason.startswith("int8 asked, ")
    assert "of MACs run in int8 (1 of" in run.reason
    assert run.audit["mac_shares"]["float32"] > 0.5
    assert run.reason in told(run)


@dataclass(frozen=True)
class WeightOnly(Technique):
    """Quantize the weights of linear layers with torchao, which then computes in float."""

    word: ClassVar[str] = "weightonly"

    def apply(self, draft: Draft, context: Context) -> Draft:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        model = copy.deepcopy(draft.model)
        quantize_(model, Int8WeightOnlyConfig())
        return draft.with_(model=model, dtype="int8")


class Wide(nn.Module):
    """Two linear layers whose weights outweigh everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 1024), nn.Linear(1024, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


def test_weights_stored_in_int8_by_torchao_gain_no_speed_and_it_is_said_why(
    digits: Digits, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workload(Wide().eval(), test=digits.test)
    monkeypatch.setattr("nbopt.recipe.technique_text", lambda step: step.word)
    run = optimize(work, WeightOnly(), runtimes=["torch"], threads=1, store=store)["weightonly/torch"]
    assert not run.failed, run.reason
    assert run.verdicts["latency"] != "better"
    assert "int8 is storage only: computes in float32" in run.reason
    assert run.audit["weight_shares"]["int8"] > 0.9
    assert run.audit["mac_shares"]["float32"] == 1.0


def test_two_callables_of_which_one_gains_nothing_are_not_ranked_as_faster() -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    plain = Wide().eval()
    stored = copy.deepcopy(plain)
    quantize_(stored, Int8WeightOnlyConfig())
    x = torch.rand(1, 64)
    with torch.inference_mode():
        assert measure(lambda: plain(x), lambda: stored(x)).verdict != "better"


def test_a_calibration_set_taken_from_test_is_refused_by_content(trained_mlp: Any, digits: Digits) -> None:
    work = Workload(trained_mlp, train=digits.test, test=digits.test)
    assert work.shared_rows == len(np.unique(digits.test[0], axis=0))
    with pytest.raises(DataError, match="calibrat"):
        work.calibration(64, np.random.default_rng(0))
    x, y = digits.train
    mixed = Workload(
        trained_mlp, train=(np.concatenate([digits.test[0], x]), np.concatenate([digits.test[1], y])), test=digits.test
    )
    rows, note = mixed.calibration(64, np.random.default_rng(0))
    seen = {row.tobytes() for row in digits.test[0]}
    assert len(rows) == 64
    assert not any(leaf.tobytes() in seen for row in rows for leaf in row)
    assert "left out of calibration" in note


def test_bfloat16_that_openvino_takes_by_itself_would_be_seen(
    trained_cnn: Any, digits: Digits, store: RunStore
) -> None:
    import openvino

    x, y = digits.test
    work = Workload(trained_cnn, test=(x.reshape(-1, 1, 8, 8), y))
    found = optimize(work, Quantize(dtype="bfloat16"), runtimes=["openvino"], threads=1, store=store)
    baseline, half = found["baseline/openvino"], found["quantize/openvino"]
    # A baseline is asked for float32 by name: on a machine with bfloat16 it would else be another model.
    assert baseline.audit["mac_shares"] == {"float32": 1.0}
    able = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if able:
        assert half.audit["mac_shares"].get("bfloat16", 0) > 0.5
    else:
        assert half.reason == "bfloat16 asked: this CPU computes in float32"


def times_as_fast(before: Path, after: Path, shape: tuple[int, ...], rounds: int = 60) -> float:
    """Return how many times as fast one LiteRT file is as another, called by hand in turns."""
    from ai_edge_litert.interpreter import Interpreter

    calls = [Interpreter(model_path=str(path), num_threads=1) for path in (before, after)]
    for each in calls:
        each.resize_tensor_input(each.get_input_details()[0]["index"], shape)
        each.allocate_tensors()
        each.set_tensor(each.get_input_details()[0]["index"], np.ones(shape, np.float32))
        each.invoke()
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for each, times in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            each.invoke()
            times.append(time.perf_counter() - began)
    return float(np.median(seconds[0]) / np.median(seconds[1]))


@pytest.mark.slow
def test_dynamic_int8_on_litert_is_called_what_the_clock_says(digits: Digits, store: RunStore) -> None:
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 16)),
            *[
                layer
                for _ in range(4)
                for layer in (layers.DepthwiseConv2D(3, padding="same"), layers.Conv2D(64, 1, activation="relu"))
            ],
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    rng = np.random.default_rng(0)
    work = Workload(model, test=(rng.random((64, 32, 32, 16), np.float32), rng.integers(0, 10, 64)))
    found = optimize(work, Quantize(method="dynamic"), runtimes=["litert"], threads=1, store=store)
    run, base = found["quantize/litert"], found["baseline/litert"]
    assert run.verdicts["size"] == "better"
    # On Intel's CPUs it is slower, on AMD's with AVX-VNNI it was seen to be faster: the same files by hand tell.
    ratio = times_as_fast(store.home / base.artifact, store.home / run.artifact, (1, 32, 32, 16))
    if run.verdicts["technique"] not in QUIET:
        assert run.speedup_technique == pytest.approx(ratio, rel=0.3)
    if ratio < 0.9:
        assert run.verdicts["technique"] in {"worse", *QUIET}
        assert run.speedup_technique < 1
    if ratio > 1.1:
        assert run.verdicts["technique"] in {"better", *QUIET}
        assert run.speedup_technique > 1
    if run.verdicts["technique"] == "worse":
        assert "slower" in run.verdict
