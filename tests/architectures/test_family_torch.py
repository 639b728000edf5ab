"""Candidates of torch modules: alone and in the shared weights they compute the same, and they learn together."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.architectures._torch.lessons import Lessons, Shared, mixture
from nbopt.architectures._torch.parts import without
from nbopt.architectures.family import Family
from nbopt.architectures.lowering import whole_as_teacher
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.batches import Batch
from nbopt.controllers.relaxed import softmax
from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.narrowing._torch.weights import put_zeros
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import train

Array = np.ndarray[Any, Any]


class Residual(nn.Module):
    def __init__(self, width: int, inside: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, inside, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(inside)
        self.two = nn.Conv2d(inside, width, 3, padding=1)

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.two(torch.relu(self.norm(self.one(x)))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.cells(x)[0][:, -1])


def residual() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        Residual(16, 16),
        nn.MaxPool2d(2),
        Residual(16, 8),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def family_of(model: nn.Module, digits: Digits, shape: tuple[int, ...]) -> Family:
    x, y = digits.x.reshape(-1, *shape), digits.y
    model = train(model, x[:1000], y[:1000])
    work = Workload(model.eval(), train=(x[:1000], y[:1000]), valid=(x[1000:1250], y[1000:1250]), metric="accuracy")
    return Family.of(model, Context(work))


@pytest.fixture(scope="module")
def images(digits: Digits) -> Family:
    return family_of(residual(), digits, (1, 8, 8))


@pytest.fixture(scope="module")
def rows(digits: Digits) -> Family:
    return family_of(Recurrent(), digits, (8, 8))


def some(family: Family, count: int = 6) -> Array:
    return family.space.grid.draw(np.random.default_rng(0), count)


def inputs_of(family: Family) -> tuple[Array, ...]:
    return tuple(next(iter(family.context.workload.select_rows.batches())))


def test_widths_kernels_and_blocks_of_a_residual_network_may_change(images: Family) -> None:
    kinds = [choice.kind for choice in images.space.choices]
    assert [kinds.count(kind) for kind in ("width", "kernel", "block")] == [3, 5, 2]


@pytest.mark.parametrize("name", ["images", "rows"])
def test_a_candidate_alone_and_in_the_shared_weights_computes_the_same(
    name: str, request: pytest.FixtureRequest
) -> None:
    family: Family = request.getfixturevalue(name)
    shared = Shared(family.model, family.factors)
    x = inputs_of(family)
    tensors = tuple(map(torch.from_numpy, x))
    family.model.eval()
    for setting in some(family).tolist():
        alone = family.context.workload.framework.predict(family.built(setting), x)
        shares = family.factors.one_hot(setting)
        with torch.no_grad():
            weights = shared.weights(list(map(torch.from_numpy, shares)))
            together = shared.call(tensors, weights, family.factors.gated(shares)).numpy()
        silent = copy.deepcopy(family.model)
        put_zeros(silent, family.factors.masks(setting), {})
        without(silent, family.space.blueprint(setting).skipped)
        zeroed = family.context.workload.framework.predict(silent, x)
        assert together == pytest.approx(zeroed, abs=1e-4)
        assert alone == pytest.approx(zeroed, abs=1e-4)


def test_a_candidate_in_training_leaves_no_trace_in_the_statistics(images: Family) -> None:
    before = {name: buffer.clone() for name, buffer in images.model.named_buffers()}
    shared = Shared(images.model, images.factors)
    images.model.train()
    shares = images.factors.one_hot([0] * len(images.space.choices))
    weights = shared.weights(list(map(torch.from_numpy, shares)))
    shared.call(tuple(map(torch.from_numpy, inputs_of(images))), weights, images.factors.gated(shares))
    images.model.eval()
    assert all(torch.equal(buffer, before[name]) for name, buffer in images.model.named_buffers())


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, batch: Any) -> Any:
        return self.head(torch.relu(self.body(batch["x"])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_candidates_of_a_model_are_called_as_it_is(dtype: torch.dtype, digits: Digits) -> None:
    x, y = digits.x[:200], digits.y[:200]
    model = Whole().to(dtype).eval()
    family = Family.of(model, Context(Workload(model, train=({"x": x}, y), valid=({"x": x}, y), metric="accuracy")))
    shared, shares = Shared(family.model, family.factors), family.factors.one_hot([0] * len(family.space.choices))
    inputs = {"x": torch.from_numpy(x).to(dtype)}
    output = shared.call(inputs, shared.weights(list(map(torch.from_numpy, shares))), family.factors.gated(shares))
    alone = family.context.workload.framework.predict(family.built([0] * len(family.space.choices)), {"x": x})
    assert output.detach().float().numpy() == pytest.approx(alone, abs=0.02)


def test_candidates_learn_together_and_the_users_model_stays(digits: Digits) -> None:
    family = family_of(residual(), digits, (1, 8, 8))
    workload = family.context.workload
    untouched = workload.framework.state(workload.model)
    settings = some(family, 8)
    # Of widths alone: what has no kernel and no block left takes longer than a test.
    for at, choice in enumerate(family.space.choices):
        settings[:, at] = settings[:, at] if choice.kind == "width" else len(choice.options) - 1
    before = [family.judged(setting)[1] for setting in settings]
    plan = TrainingPlan(epochs=10, learning_rate=3e-3, schedule="cosine", keep_best=False)
    assert workload.train is not None
    steps = plan.epochs * (workload.train.steps(plan.batch_size) or 1)
    teacher = whole_as_teacher(workload.output)
    lessons = Lessons(Shared(family.model, family.factors), Sandwich(family.space.grid), teacher, Pace(steps))
    workload.framework.fit(family.model, plan, family.context.fitting(teach=lessons, score=None))
    assert lessons.pace.step == steps
    after = [family.judged(setting)[1] for setting in settings]
    # Half-width candidates of a trained network begin at 0.8: a fifth of their errors must go.
    assert 1 - np.mean(after) < 0.8 * (1 - np.mean(before))
    now = workload.framework.state(workload.model)
    assert all(torch.equal(now[name], value) for name, value in untouched.items())


def test_the_steps_of_a_source_that_does_not_tell_are_counted(images: Family, digits: Digits) -> None:
    x, y = digits.x.reshape(-1, 1, 8, 8), digits.y

    def batches() -> Any:
        yield from ((x[start : start + 50], y[start : start + 50]) for start in range(0, 1000, 50))

    work = Workload(images.context.workload.model, train=batches, valid=(x[1000:1100], y[1000:1100]))
    family = replace(images, context=Context(work))
    lessons = family.lessons(TrainingPlan(epochs=3, max_seconds=7.0), whole_as_teacher(work.output))
    assert (lessons.pace.steps, lessons.pace.seconds) == (60, 7.0)


def test_the_gradient_of_a_mixture_is_that_of_differences(images: Family) -> None:
    workload = images.context.workload
    rng = np.random.default_rng(0)
    weights = [softmax(rng.normal(size=size)) for size in images.space.grid.sizes]
    rows_in, labels = inputs_of(images), workload.select_rows.targets
    assert labels is not None
    batch = Batch(tuple(x[:64] for x in rows_in), labels[:64], None)

    def value(mixed: list[Array]) -> float:
        return mixture(images.model, images.factors, workload.loss, batch, mixed)[0]

    _, slopes = mixture(images.model, images.factors, workload.loss, batch, weights)
    for at, row in enumerate(weights):
        up, down = [[*map(np.copy, weights)] for _ in range(2)]
        step = rng.normal(size=len(row))
        up[at] += 1e-2 * step
        down[at] -= 1e-2 * step
        assert slopes[at] @ step == pytest.approx((value(up) - value(down)) / 2e-2, rel=0.05, abs=5e-3)


def test_nothing_to_choose_is_refused_with_what_was_found(digits: Digits) -> None:
    model = nn.Sequential(nn.Linear(64, 10)).eval()
    work = Workload(model, train=digits.train, valid=digits.valid, metric="accuracy")
    with pytest.raises(ModelError, match="a space of one point"):
        Family.of(model, Context(work))


@pytest.mark.parametrize("error", [ValueError, ArithmeticError])
def test_a_candidate_that_does_not_run_says_why(error: type[Exception], images: Family) -> None:
    class Picky(nn.Module):
        def forward(self, x: Any) -> Any:
            raise error("not this way")

    broken = copy.copy(images)
    object.__setattr__(broken, "traced", None)
    object.__setattr__(broken, "model", nn.Sequential(*images.model[:2], Picky(), *images.model[3:]))
    with pytest.raises(ModelError, match="Error: not this way"):
        broken.built(images.space.grid.start or ())
