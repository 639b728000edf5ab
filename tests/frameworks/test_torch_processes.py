"""A torch training in several processes: the one of a single process, decided once, and nothing left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from nbopt.data import Split
from nbopt.errors import DataError, MissingExtra, ModelError, OptionError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.frameworks import _torch_processes as processes
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.progress import Progress
from nbopt.teaching import Teacher
from nbopt.training import TrainingPlan
from tests import models
from tests.processes import command_of

RNG = np.random.default_rng(0)
X = RNG.normal(size=(403, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)
PLAN = TrainingPlan(epochs=2, learning_rate=1e-2, batch_size=50)
PAIR = PLAN.adjusted(devices=2)
TOKENS = {
    "input_ids": RNG.integers(0, 50, (64, 7)),
    "attention_mask": np.ones((64, 7), np.int64),
    "labels": RNG.integers(0, 3, 64),
}


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.mlp(6, 3, 16)


def accuracy(model: nn.Module) -> float:
    return float((FRAMEWORK.predict(model, (X,)).argmax(1) == Y).mean())


def fitting(data: Any = (X, Y), kind: Any = "logits", **more: Any) -> Fitting:
    return Fitting(Split(data, "train"), FRAMEWORK.loss(None, None, kind)[0], **more)


def members() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "_torch_member" in " ".join(command_of(each))]


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    assert members() == []


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("weighted", [False, True])
def test_two_processes_make_the_steps_of_one(weighted: bool) -> None:
    # The last of nine batches has three rows, of which two processes can't have two each.
    data = (X, Y, RNG.random(len(X)).astype(np.float32)) if weighted else (X, Y)
    plan = PLAN.adjusted(optimizer="sgd", schedule="cosine")
    alone, shared = small(), small()
    one = FRAMEWORK.fit(alone, plan, fitting(data, score=accuracy))
    two = FRAMEWORK.fit(shared, plan.adjusted(devices=2), fitting(data, score=accuracy))
    assert difference(alone, small()) > 1e-2
    assert difference(alone, shared) < 1e-5
    assert two.rates == one.rates
    assert two.scores == one.scores
    assert two.kept_epoch == one.kept_epoch
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    assert one.shared == ""
    assert "trained in 2 processes" in two.shared
    assert "a step is 50 rows as in one process, 25 or fewer in each" in two.shared
    assert not shared.training


class Branching(nn.Module):
    """A net with a layer that is never used, which the processes must not wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "batch norm": (models.Cnn, (RNG.normal(size=(65, 1, 8, 8)).astype(np.float32), RNG.integers(0, 10, 65))),
    "lstm": (models.Lstm, (RNG.normal(size=(64, 5, 8)).astype(np.float32), RNG.integers(0, 10, 64))),
    "transformer by name, dropped out": (models.TextEncoder, TOKENS),
    "an unused layer": (Branching, (X, Y)),
    "a loader": (small, None),
}


@pytest.mark.parametrize("name", CASES)
def test_any_model_and_any_data_are_trained_in_half_precision_too(name: str) -> None:
    make, data = CASES[name]
    if data is None:
        rows = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
        data = torch.utils.data.DataLoader(rows, batch_size=40, shuffle=True)
    torch.manual_seed(0)
    model = make().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = FRAMEWORK.fit(model, PAIR.adjusted(precision="bfloat16", averaging="ema"), fitting(data))
    assert record.epochs == 2
    assert record.mixed is not None
    assert record.mixed.skipped == 0
    assert record.mixed.steps == 2 * len(list(Split(data, "train").training_batches(50, RNG)))
    assert all(np.isfinite(record.losses))
    after = model.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    assert ("BatchNorm took each process's own rows" in record.shared) == (name == "batch norm")


def test_batch_norm_has_the_mean_of_the_processes_statistics() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2, momentum=1.0), nn.Linear(2, 2))
    # One batch: the first half of its rows is one process's, and all of them lie where its mean tells.
    x = np.concatenate([np.full((10, 2), 1.0), np.full((10, 2), 3.0)]).astype(np.float32)
    loader = [(x, np.zeros(20, np.int64))]
    FRAMEWORK.fit(model, PAIR.adjusted(epochs=1), fitting(loader))
    assert model[0].running_mean.tolist() == pytest.approx([2.0, 2.0])
    assert int(model[0].num_batches_tracked) == 1


def test_one_decision_ends_all_and_the_best_state_is_kept() -> None:
    scores = iter([0.5, 0.9, 0.6, 0.6, 0.6, 0.6])
    states: list[torch.Tensor] = []

    def score(model: nn.Module) -> float:
        states.append(model[0].weight.detach().clone())
        return next(scores)

    model = small()
    plan = PAIR.adjusted(epochs=5, patience=2, monitor="metric", schedule="plateau", plateau=1)
    record = FRAMEWORK.fit(model, plan, fitting(score=score))
    assert record.epochs == 3
    assert "did not get better in 2 epochs" in record.stopped
    assert record.kept_epoch == 1
    assert torch.equal(model[0].weight, states[1])
    assert record.rates == pytest.approx([1e-2, 1e-2, 1e-3])


class Rude(nn.Module):
    """A layer whose gradient is infinite wherever one input is very large: in the shares that have such a row."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bad = bool((x > 99).any())
        output = self.body(x.clamp(-9, 9))
        if self.training and bad:
            output.register_hook(lambda gradient: gradient * float("inf"))
        return output


def test_a_step_that_overflows_in_one_process_is_skipped_in_all() -> None:
    x = X.copy()
    x[101, 0] = x[355, 0] = 100.0  # in the first half of the third batch, and the first of the eighth
    batches = [(x[at : at + 50], Y[at : at + 50]) for at in range(0, 400, 50)]
    plan = PLAN.adjusted(precision="float16", optimizer="sgd", epochs=1)
    alone, shared = Rude(), Rude()
    shared.load_state_dict(alone.state_dict())
    one = FRAMEWORK.fit(alone, plan, fitting(batches))
    two = FRAMEWORK.fit(shared, plan.adjusted(devices=2), fitting(batches))
    assert two.mixed == one.mixed
    assert one.mixed is not None
    assert (one.mixed.skipped, one.mixed.steps, one.mixed.scale) == (2, 8, 65536 / 4)
    assert difference(alone, shared) < 1e-3


# Endings


def test_an_interrupt_ends_all_processes_and_leaves_the_best_state() -> None:
    states: list[torch.Tensor] = []

    def score(model: nn.Module) -> float:
        states.append(model[0].weight.detach().clone())
        return float(len(states))

    def interrupt(progress: Progress) -> None:
        if progress.done > 1.3:
            assert len(members()) == 2
            raise KeyboardInterrupt

    model = small()
    with pytest.raises(KeyboardInterrupt):
        FRAMEWORK.fit(model, PAIR.adjusted(epochs=5), fitting(score=score, progress=interrupt))
    assert members() == []
    assert len(states) == 2
    assert torch.equal(model[0].weight, states[-1])


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_is_killed_ends_the_training_with_its_signal(which: int) -> None:
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.done > 1.0 and not killed:
            killed.append(members()[which].pid)
            os.kill(killed[0], signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(TrainingError, match=f"process {which + 1}: ended with signal SIGKILL") as caught:
        FRAMEWORK.fit(small(), PAIR.adjusted(epochs=500), fitting(progress=kill))
    assert "2 processes" in caught.value.expected
    assert time.monotonic() - began < 120


def test_what_a_process_raises_is_raised_here() -> None:
    labels = Y.copy()
    labels[-1] = 7  # in the rows of the second process alone
    with pytest.raises(DataError, match="labels"):
        FRAMEWORK.fit(small(), PAIR, fitting([(X, labels)]))

    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise ZeroDivisionError("in my model")
            return super().forward(x)

    with pytest.raises(ModelError, match="ZeroDivisionError: in my model"):
        FRAMEWORK.fit(Broken(6, 3), PAIR, fitting())


def test_a_limit_of_time_ends_it_within_an_epoch() -> None:
    record = FRAMEWORK.fit(small(), PAIR.adjusted(epochs=100_000, max_seconds=0.01), fitting())
    assert record.epochs == 1
    assert "max_seconds" in record.stopped


# What is refused


def test_what_several_processes_can_not_do_is_refused() -> None:
    with pytest.raises(OptionError, match="changes them after each step"):
        FRAMEWORK.fit(small(), PAIR, fitting(hold=(lambda model: None,)))
    with pytest.raises(OptionError, match="cores"):
        FRAMEWORK.fit(small(), PLAN.adjusted(devices=processes.cores() + 1), fitting())
    with pytest.raises(OptionError, match="swa"):
        FRAMEWORK.check_devices(models.Cnn(), PAIR.adjusted(averaging="swa"))
    FRAMEWORK.check_devices(small(), PAIR.adjusted(averaging="swa"))  # it has no BatchNorm
    with pytest.raises(OptionError, match="teacher"):
        FRAMEWORK.check_devices(small(), PAIR.adjusted(teacher=Teacher(lambda inputs: inputs, "logits")))
    with pytest.raises(OptionError, match="devices of 1 or more"):
        PLAN.adjusted(devices=0)
    locked = small()
    locked.lock = __import__("threading").Lock()
    with pytest.raises(ModelError, match="pickle"):
        FRAMEWORK.fit(locked, PAIR, fitting())


def test_without_accelerate_the_command_that_brings_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        FRAMEWORK.fit(small(), PAIR, fitting())
    assert caught.value.do == 'pip install "nbopt[accelerate]"'


def test_a_keras_model_is_told_its_own_way() -> None:
    from nbopt.frameworks.keras import FRAMEWORK as KERAS
    from tests.keras_models import L, keras

    model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
    with pytest.raises(OptionError, match="one device") as caught:
        KERAS.fit(model, PAIR, fitting())
    assert "MirroredStrategy" in caught.value.do
