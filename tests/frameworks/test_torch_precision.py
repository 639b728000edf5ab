"""Half precision in the torch loop: any model, float32 weights, skipped steps counted, nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.data import Split
from nbopt.errors import DataError, ModelError, OptionError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.frameworks._torch_precision import Precision, all_finite, gradients, native_halves
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.training import FRUITLESS, TrainingPlan
from tests import models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)
PLAN = TrainingPlan(epochs=3, learning_rate=1e-2, batch_size=50, precision="bfloat16")
TOKENS = {
    "input_ids": RNG.integers(0, 50, (64, 7)),
    "attention_mask": np.ones((64, 7), np.int64),
    "labels": RNG.integers(0, 3, 64),
}
CASES: dict[str, tuple[Callable[[], nn.Module], Any, Any]] = {
    "mlp": (lambda: models.mlp(6, 3, 16), (X, Y), "logits"),
    "row weights": (lambda: models.mlp(6, 3, 16), (X, Y, np.ones(len(X), np.float32)), "logits"),
    "batch norm": (models.Cnn, (RNG.normal(size=(64, 1, 8, 8)).astype(np.float32), RNG.integers(0, 10, 64)), "logits"),
    "lstm": (models.Lstm, (RNG.normal(size=(64, 5, 8)).astype(np.float32), RNG.integers(0, 10, 64)), "logits"),
    "transformer by name": (models.TextEncoder, TOKENS, "logits"),
    "two inputs": (models.TwoInputs, ((X, RNG.integers(0, 5, 400)), RNG.integers(0, 2, 400)), "logits"),
    "regression": (lambda: models.mlp(6, 1, 16), (X, X[:, :1] * 3), "regression"),
    "binary": (lambda: models.mlp(6, 1, 16), (X, (X[:, 0] > 0).astype(np.float32)), "binary_logits"),
    "probabilities": (
        lambda: nn.Sequential(models.mlp(6, 1, 16), nn.Sigmoid()),
        (X, (X[:, 0] > 0).astype(np.float32)),
        "binary_probabilities",
    ),
    "multilabel": (lambda: models.mlp(6, 3, 16), (X, (X[:, :3] > 0).astype(np.float32)), "multilabel_logits"),
}


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.mlp(6, 3, 16)


def fitting(data: Any = (X, Y), kind: Any = "logits", **more: Any) -> Fitting:
    return Fitting(Split(data, "train"), FRAMEWORK.loss(None, None, kind)[0], **more)


def accuracy(model: nn.Module) -> float:
    return float((FRAMEWORK.predict(model, (X,)).argmax(1) == Y).mean())


# oneDNN has no LSTM in float16 for CPUs; see below.
BOTH = [(name, half) for name in CASES for half in ("bfloat16", "float16") if (name, half) != ("lstm", "float16")]


@pytest.mark.parametrize(("name", "precision"), BOTH)
def test_any_model_trains_in_half_precision_and_stays_float32(name: str, precision: str) -> None:
    make, data, kind = CASES[name]
    torch.manual_seed(0)
    model = make()
    seen: set[torch.dtype] = set()
    leaf = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    handle = leaf.register_forward_hook(lambda module, given, output: seen.add(output.dtype))
    before = [p.detach().clone() for p in model.parameters()]
    plan = PLAN.adjusted(precision=precision, learning_rate=1e-3)
    record = FRAMEWORK.fit(model, plan, fitting(data, kind))
    handle.remove()
    assert seen == {getattr(torch, precision)}
    assert record.mixed is not None
    assert record.mixed.precision == precision
    assert record.mixed.steps == 3 * (Split(data, "train").steps(50) or 0)
    assert record.mixed.skipped < record.mixed.steps / 2
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(np.isfinite(record.losses))


def test_it_learns_as_in_float32() -> None:
    scores = {}
    for precision in ("float32", "bfloat16", "float16"):
        model = small()
        plan = PLAN.adjusted(precision=precision, epochs=10)
        FRAMEWORK.fit(model, plan, fitting(score=accuracy))
        scores[precision] = accuracy(model)
    assert scores["float32"] > 0.9
    assert abs(scores["bfloat16"] - scores["float32"]) < 0.05
    assert abs(scores["float16"] - scores["float32"]) < 0.05


def test_float32_is_bit_for_bit_what_it_was_without_a_precision() -> None:
    one, two = small(), small()
    record = FRAMEWORK.fit(one, PLAN.adjusted(precision="float32"), fitting())
    optimizer = torch.optim.AdamW(two.parameters(), lr=1e-2, weight_decay=0.0)
    two.train()
    rng = np.random.default_rng(0)
    for _ in range(3):
        for batch in Split((X, Y), "train").training_batches(50, rng):
            optimizer.zero_grad()
            nn.functional.cross_entropy(two(torch.tensor(batch.inputs[0])), torch.tensor(batch.targets)).backward()
            optimizer.step()
    assert record.mixed is None
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


class Rude(nn.Module):
    """A layer whose gradient is infinite in the batches that it is told."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.body, self.bad, self.calls = nn.Linear(6, 3), bad, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        output = self.body(x)
        if self.calls in self.bad:
            output.register_hook(lambda gradient: gradient * float("inf"))
        return output


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_steps_whose_gradients_are_not_finite_are_skipped_and_counted(precision: str) -> None:
    model = Rude({3, 10})
    before: list[torch.Tensor] = []

    def watch(model: Any) -> None:
        before.append(model.body.weight.detach().clone())

    record = FRAMEWORK.fit(model, PLAN.adjusted(precision=precision), fitting(hold=(watch,)))
    assert record.mixed is not None
    assert (record.mixed.skipped, record.mixed.nonfinite, record.mixed.steps) == (2, 4, 24)
    assert torch.equal(before[2], before[1])
    assert torch.equal(before[9], before[8])
    assert not torch.equal(before[3], before[2])
    assert torch.isfinite(model.body.weight).all()
    if precision == "float16":
        assert record.mixed.scale == 65536 / 4
    else:
        assert record.mixed.scale is None
    assert "2 of 24 steps were skipped for 4 gradients" in record.mixed.note


def test_a_skipped_step_does_not_move_the_schedule() -> None:
    model = Rude({1})
    record = FRAMEWORK.fit(model, PLAN.adjusted(schedule="cosine"), fitting())  # torch would warn, and so fail
    assert record.mixed is not None
    assert record.mixed.skipped == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_training_that_only_skips_ends_with_what_to_do(precision: str) -> None:
    with pytest.raises(TrainingError, match=f"{FRUITLESS} steps in a row") as caught:
        FRAMEWORK.fit(Rude(set(range(1000))), PLAN.adjusted(precision=precision, epochs=9), fitting())
    assert "learning-rate" in caught.value.do


def test_a_loss_that_overflows_float16_is_told() -> None:
    big = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3)).eval()
    with torch.no_grad():
        big[0].weight.fill_(3e4)
    with pytest.raises((DataError, TrainingError), match="bfloat16"):
        FRAMEWORK.fit(big, PLAN.adjusted(precision="float16"), fitting())


def test_sparse_gradients_are_looked_at_too() -> None:
    table = nn.Embedding(10, 4, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    table(torch.tensor([1, 2])).sum().backward()
    assert all_finite(optimizer)
    gradients(optimizer)[0].fill_(0)
    table.weight.grad = table.weight.grad * float("nan")
    assert not all_finite(optimizer)


def test_gradients_whose_squares_overflow_are_finite() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 1e30)
    assert all_finite(torch.optim.SGD([weight], lr=0.1))


def test_a_precision_is_one_that_there_is() -> None:
    with pytest.raises(OptionError, match="bfloat16"):
        TrainingPlan(precision="int4")


def test_a_model_in_half_precision_is_refused() -> None:
    with pytest.raises(ModelError, match="float32"):
        native_halves(models.mlp().half())
    assert "bfloat16" in native_halves(models.mlp())


def test_outputs_that_are_whole_are_left_alone() -> None:
    plan = TrainingPlan(precision="bfloat16")
    doubled = Precision(plan, nn.Linear(2, 2)).call(nn.Softmax(-1), (torch.ones(1, 2),))
    assert doubled.dtype == torch.float32


def test_steps_are_made_on_a_copy_and_their_memory_is_halved() -> None:
    torch.manual_seed(0)
    model = models.Cnn()
    images = RNG.normal(size=(64, 1, 8, 8)).astype(np.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sides = {
        precision: FRAMEWORK.stepping(
            model, PLAN.adjusted(precision=precision), fitting((images, RNG.integers(0, 10, 64)))
        )
        for precision in ("float32", "bfloat16")
    }
    for side in sides.values():
        side.step()
        side.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    whole, half = sides["float32"].memory(), sides["bfloat16"].memory()
    assert whole is not None
    assert half is not None
    # The first convolution alone keeps 64 x 16 x 8 x 8 numbers for what follows it.
    assert whole > 64 * 16 * 8 * 8 * 4
    assert 0.4 < half / whole < 0.9


def test_a_model_without_a_kernel_in_a_precision_is_told_by_its_first_step() -> None:
    steps = RNG.normal(size=(64, 5, 8)).astype(np.float32)
    with pytest.raises(ModelError, match="layers that compute in float16"):
        FRAMEWORK.stepping(models.Lstm(), PLAN.adjusted(precision="float16"), fitting((steps, RNG.integers(0, 10, 64))))
