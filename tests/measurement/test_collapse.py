"""What a collapse is told with: the symptom, the likely cause by what was done, and the next thing to try."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.comparison import Comparison, Limits
from nbopt.errors import GateFailed
from nbopt.loop import optimize
from nbopt.measurement.collapse import Done, Range, Symptom, chance_of, explain, widest
from nbopt.measurement.metrics import METRICS, metric_of
from nbopt.measurement.predictions import prepare
from nbopt.render import run_sentence
from nbopt.render.pictures import COLOURS
from nbopt.render.view import View
from nbopt.runs import RunStore
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("metric", "output", "y", "chance"),
    [
        ("accuracy", "logits", [0, 0, 0, 1, 2], 0.6),
        ("balanced_accuracy", "logits", [0, 0, 0, 1, 2], 1 / 3),
        ("auc", "binary_logits", [0, 0, 0, 1], 0.5),
        ("auc", "logits", [0, 0, 0, 1, 2], 0.5),
        ("average_precision", "binary_logits", [0, 0, 0, 1], 0.25),
        ("f1", "binary_logits", [0, 0, 0, 1], 0.4),
        ("log_loss", "binary_logits", [0, 1], np.log(2)),
        ("accuracy", "multilabel_logits", [[0, 1], [0, 1], [1, 1]], 2 / 3),
        ("rmse", "regression", [0.0, 0.0, 6.0], np.sqrt(8)),
        ("mae", "regression", [0.0, 0.0, 6.0], 2.0),
        ("mae", "regression", [[0.0, 1.0], [0.0, 1.0], [6.0, 4.0]], 1.5),
        ("r2", "regression", [0.0, 0.0, 6.0], 0.0),
    ],
)
def test_chance_is_what_the_best_constant_guess_scores(metric: str, output: Any, y: Any, chance: float) -> None:
    labels = np.array(y)
    shape = labels.shape if output != "logits" else (len(labels), 3)
    scored = prepare(labels, RNG.normal(size=shape), output)
    assert chance_of(metric_of(metric, output=output), scored) == pytest.approx(chance)


def test_every_named_metric_has_a_chance_and_a_users_function_has_none() -> None:
    for name, metric in METRICS.items():
        output: Any = "regression" if metric.needs == "values" else "binary_logits"
        y = RNG.normal(size=50) if output == "regression" else RNG.integers(0, 2, 50)
        scored = prepare(y, RNG.normal(size=50), output, RNG.random(50))
        assert chance_of(metric_of(name, output=output), scored) is not None, name
    assert chance_of(metric_of(lambda y, s: 0.0, output="logits"), prepare([0, 1], np.eye(2), "logits")) is None


def test_the_widest_channel_is_found_in_weights_norms_and_inputs() -> None:
    weight = RNG.uniform(0.5, 1, (8, 6)).astype(np.float32)
    odd = weight.copy()
    odd[5] *= 1000
    found = widest([("0.weight", odd), ("0.bias", odd[5])], [], (0, 1))
    assert found is not None
    assert found.where == "output channel 5 of 0.weight"
    assert found.ratio == pytest.approx(1000, rel=0.5)
    keras_kernel = widest([("1:dense/kernel", odd.T)], [], (-1, -2))
    assert keras_kernel is not None
    assert keras_kernel.where == "output channel 5 of 1:dense/kernel"
    gamma = np.ones(16)
    gamma[2] = 400
    norm = widest([("norm.weight", gamma), ("norm.running_var", gamma**2)], [], (0, 1))
    assert norm == Range("channel 2 of norm.weight", 400.0)
    features = RNG.uniform(-1, 1, (50, 5))
    features[:, 3] *= 1e5
    column = widest([("0.weight", weight)], [features], (0, 1))
    assert column is not None
    assert (column.where, column.is_input) == ("input feature 3", True)
    pruned = weight.copy()
    pruned[:5] = 0
    even = widest([("0.weight", pruned)], [], (0, 1))
    assert even is None or even.ratio < 3


NAN, FLAT = Symptom("not finite", "NaN", peak=3.0), Symptom("constant", "flat", peak=3.0)
ODD = Range("output channel 5 of 0.weight", 912.0)


@pytest.mark.parametrize(
    ("symptom", "done", "cause", "do"),
    [
        (FLAT, Done("quantize quantize int8 static", widest=ODD), "910 times", "--dtype float16"),
        (
            FLAT,
            Done("quantize int8 static", widest=Range("input feature 3", 1e5, True)),
            "input feature 3",
            "standardize",
        ),
        (FLAT, Done("quantize int8 static", widest=Range("x", 9.0)), "calibration", "--calibration"),
        (FLAT, Done("quantize --no-per-channel int8 static", widest=ODD), "one scale for all", "--no-per-channel out"),
        (FLAT, Done("quantize --no-per-channel int8 static"), "one int8 scale", "--no-per-channel out"),
        (FLAT, Done("quantize --no-per-channel int8 dynamic", recurrent=True), "recurrent", "--no-per-channel out"),
        (FLAT, Done("quantize int8 dynamic", recurrent=True), "recurrent", "--dtype float16"),
        (FLAT, Done("quantize int8 dynamic"), "too few", "--method static"),
        (NAN, Done("quantize float16", peak_weight=1e6), "weights reach 1e+06", "bfloat16"),
        (Symptom("not finite", "NaN", 7e5), Done("quantize float16"), "outputs reach 7e+05", "bfloat16"),
        (NAN, Done("quantize float16"), "passed it", "bfloat16"),
        (FLAT, Done("quantize float16"), "6e-8", "bfloat16"),
        (FLAT, Done("prune 0.95 unstructured"), "without fine-tuning", "--epochs"),
        (FLAT, Done("prune 0.95 unstructured", trained=True), "too much was pruned", "smaller --sparsity"),
        (NAN, Done("prune 0.95 unstructured", trained=True), "diverged", "--learning-rate"),
        (NAN, Done("schedule", trained=True), "diverged", "--learning-rate"),
        (FLAT, Done("distill", trained=True), "unlearned", "--learning-rate"),
        (FLAT, Done("distill --student simple", trained=True), "learned too little", "--epochs"),
        (FLAT, Done("baseline baseline", runtime="openvino"), "openvino computes", "--runtimes"),
        (
            FLAT,
            Done("prune --epochs 0 | quantize prune 0.5 + quantize int8 static", widest=ODD),
            "910 times",
            "one at a",
        ),
        (FLAT, Done("prune | quantize prune 0.5 + quantize int8 static"), "without fine-tuning", "one at a time"),
        (FLAT, Done("something"), "not known", "one at a time"),
    ],
)
def test_cause_and_next_thing_follow_from_what_was_done(symptom: Symptom, done: Done, cause: str, do: str) -> None:
    found = explain(symptom, done)
    assert cause in found.cause
    assert do in found.do
    assert found.text.split(";")[0] == f"collapsed: {symptom.what}"
    assert found.text.count(";") == 2


def with_odd_channel(model: nn.Sequential, x: torch.Tensor, factor: float) -> int:
    """Scale the most active hidden channel, and its place in the next layer, which leaves the function as it is."""
    first, last = model[0], model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        before = model(x)
        channel = int(torch.relu(first(x)).mean(0).argmax())
        first.weight[channel] *= factor
        first.bias[channel] *= factor
        last.weight[:, channel] /= factor
        torch.testing.assert_close(model(x), before, rtol=1e-3, atol=1e-3)
    return channel


def check_collapsed(result: Comparison, name: str) -> None:
    """Check that a run is named for what it is, kept out of every choice, and shown in red."""
    run = result[name]
    assert not run.failed
    assert run.collapsed
    assert run.size_bytes
    assert run.latency_ms
    assert run.speedup
    assert result.best(max_drop=0.9).name != name
    assert name not in {each.name for each in result.pareto()}
    for limits in (Limits(min_speedup=0.001), Limits(max_drop=1.0), Limits(max_size=10**9)):
        assert run.verdict in limits.broken_by(Comparison([result.runs[0], run]))
    view = View(result.runs)
    assert view.tone(run) == "bad"
    assert view.best is not run
    bundle = result._repr_mimebundle_()
    assert run.verdict in " ".join(str(bundle["text/plain"]).split())
    assert COLOURS["bad"] in str(bundle["text/html"])


def test_one_odd_channel_collapses_in_int8_and_is_named(digits: Digits, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.mlp(hidden=32)
    models.train(model, *digits.train)
    channel = with_odd_channel(model, torch.from_numpy(digits.test[0]), 1e4)
    work = Workload(model, train=digits.train, valid=digits.valid, test=digits.test)
    measured = {"runtimes": ["onnxruntime"], "threads": 1, "store": RunStore(tmp_path)}
    result = optimize(work, Quantize(per_channel=False), **measured)  # type: ignore[arg-type]
    before = result["baseline/onnxruntime"].quality
    assert before is not None
    assert before > 0.85
    run = result["quantize/onnxruntime"]
    check_collapsed(result, "quantize/onnxruntime")
    assert re.search(rf"the range of output channel {channel} of 0.weight is 1?\d,\d00 times the median's", run.reason)
    assert run.reason.endswith("leave --no-per-channel out, then try --dtype float16")
    # The last thing that it tells to try does help.
    half = optimize(work, Quantize(dtype="float16"), **measured)["quantize/onnxruntime"]  # type: ignore[arg-type]
    assert not half.collapsed
    assert half.quality == pytest.approx(before, abs=0.01)


def test_pruned_to_nothing_is_named(trained_mlp: nn.Module, digits: Digits) -> None:
    work = Workload(trained_mlp, train=digits.train, valid=digits.valid, test=digits.test)
    result = optimize(work, Prune(sparsity=0.999, epochs=0), runtimes=["torch"], threads=1)
    check_collapsed(result, "prune/torch")
    assert "pruned without fine-tuning; try --epochs 3" in result["prune/torch"].reason


def test_weights_beyond_float16_are_named(trained_mlp: nn.Module, digits: Digits) -> None:
    import keras

    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)])
    first, _, last = trained_mlp
    for layer, linear, *scales in zip(model.layers, (first, last), (1e30, 1e-30), (1e30, 1.0), strict=True):
        parts = linear.weight.detach().numpy().T, linear.bias.detach().numpy()
        layer.set_weights([part * scale for part, scale in zip(parts, scales, strict=True)])
    work = Workload(model, train=digits.train, valid=digits.valid, test=digits.test)
    result = optimize(work, Quantize(dtype="float16"), runtimes=["litert"], threads=1)
    check_collapsed(result, "quantize/litert")
    assert re.search(r"float16 ends at 65,504 and weights reach \d\S*e\+\d\d", result["quantize/litert"].reason)


class Cosine(nn.Module):
    """A classifier by angle, which divides by the length of its features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 10, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.body(x)
        return self.head(10 * features / features.norm(dim=1, keepdim=True))


def test_nan_is_a_measured_row_that_no_gate_passes(digits: Digits) -> None:
    torch.manual_seed(0)
    model = models.train(Cosine(), *digits.train)
    with torch.no_grad():
        model.body[0].bias.zero_()  # type: ignore[index]
    work = Workload(model, train=digits.train, valid=digits.valid, test=digits.test)
    with pytest.raises(GateFailed, match=r"NaN or infinity in (all|\d+ of) 547 rows") as caught:
        optimize(work, Prune(sparsity=0.999, epochs=0), runtimes=["torch", "onnxruntime"], threads=1, min_speedup=0.001)
    result = caught.value.comparison
    for name in ("prune/torch", "prune/onnxruntime"):
        check_collapsed(result, name)
        run = result[name]
        assert run.quality is run.quality_delta is run.max_error is None
        assert run.agreement == 0
        # Each layer keeps one weight: in a few rows it is heard.
        assert re.fullmatch(r"collapsed: NaN or infinity in (all|5\d\d of) 547 rows", run.verdict)
        assert "without fine-tuning" in run.reason
        assert "accuracy not a number" in run_sentence(run, result.baseline)
    assert result.best().is_baseline
    assert [each.verdict for each in RunStore().runs()] == [each.verdict for each in result]
