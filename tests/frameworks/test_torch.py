"""The verbs of torch: copy, run, count, train; and what they must leave as it was."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune

from nbopt.data import Split
from nbopt.errors import DataError, ModelError, NbOptWarning
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks._torch_module import plain, takes_whole
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.progress import Progress
from nbopt.training import TrainingPlan
from tests import models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)
PLAN = TrainingPlan(epochs=3, learning_rate=1e-2, batch_size=50)


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return models.mlp(6, 3, 16)


def accuracy(model: nn.Module) -> float:
    return float((FRAMEWORK.predict(model, (X,)).argmax(1) == Y).mean())


def fitting(data: Any = (X, Y), kind: Any = "logits", **more: Any) -> Fitting:
    return Fitting(Split(data, "train"), FRAMEWORK.loss(None, None, kind)[0], **more)


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()}


def test_modules_are_its_own_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_losses", ModuleType("_losses"))  # a file of the user's own
    assert framework_of(nn.Linear(1, 1)) is FRAMEWORK
    assert not FRAMEWORK.owns(nn.Linear)
    assert not FRAMEWORK.owns({"weight": 1})


# Copying


@pytest.mark.parametrize(
    "make", [small, models.Cnn, models.Lstm, models.TextEncoder, models.TwoInputs, lambda: models.mlp().half()]
)
def test_a_copy_is_equal_independent_and_in_evaluation_mode(make: Callable[[], nn.Module]) -> None:
    model = make().train()
    twin = FRAMEWORK.clone(model)
    assert not any(module.training for module in twin.modules())
    assert all(module.training for module in model.modules())
    assert state(twin) == state(model)
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_models_that_deepcopy_refuses_are_copied_too() -> None:
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))).eval()
    pruned = nn.Sequential(nn.Linear(6, 3)).eval()
    prune.l1_unstructured(pruned[0], "weight", 0.5)
    pruned(torch.ones(1, 6))
    for model in (normed, pruned):
        np.testing.assert_array_equal(FRAMEWORK.predict(FRAMEWORK.clone(model), (X,)), FRAMEWORK.predict(model, (X,)))


def test_a_model_that_can_not_be_copied_says_what_to_do() -> None:
    model = nn.Linear(6, 3)
    model.generator = (i for i in range(3))  # type: ignore[assignment]
    with pytest.raises(ModelError, match="can be copied") as caught:
        FRAMEWORK.clone(model)
    assert caught.value.do


# Running and counting


def test_outputs_come_in_every_form() -> None:
    text = {"input_ids": np.ones((2, 4), np.int64), "attention_mask": np.ones((2, 4), np.int64)}
    assert FRAMEWORK.predict(models.TextEncoder().eval(), text).shape == (2, 3)
    assert FRAMEWORK.predict(models.TwoInputs().eval(), (X[:5], Y[:5])).shape == (5, 2)
    assert FRAMEWORK.predict(models.TupleOutput().eval(), (np.ones((2, 64), np.float32),)).shape == (2, 10)
    assert FRAMEWORK.predict(models.mlp(6, 3).bfloat16(), (X,)).dtype == np.float32
    assert FRAMEWORK.predict(models.mlp(6, 3).double(), (X,)).dtype == np.float64


class Named(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        return a if b is None else a + b


class Anything(nn.Module):
    def forward(self, first: Any = None, **named: Any) -> Any:
        return named["a"] + named["b"]


@pytest.mark.parametrize("model", [models.WholeBatch(), Named(), Anything(), torch.compile(models.WholeBatch())])
def test_inputs_by_name_go_in_as_the_model_takes_them(model: nn.Module) -> None:
    whole = not isinstance(model, (Named, Anything))
    assert takes_whole(model, ("a", "b")) == whole
    assert not takes_whole(model, ("a", "batch")), "then it is one of the inputs that has that name"
    inner, x = plain(model).eval(), torch.from_numpy(X)
    expected = inner({"a": x, "b": x})["logits"] if whole else x * 2
    np.testing.assert_allclose(FRAMEWORK.predict(inner, {"a": X, "b": X}), expected.detach().numpy(), atol=1e-6)


class Pair(nn.Module):
    def forward(self, pair: tuple[torch.Tensor, torch.Tensor], scale: float = 1.0) -> torch.Tensor:
        return pair[0] + pair[1]


def test_several_inputs_without_names_go_in_as_the_model_takes_them() -> None:
    assert not takes_whole(Pair(), 2), "scale may be meant"
    assert not takes_whole(nn.Identity(), 1)
    assert takes_whole(models.WholeBatch(), 2)
    assert not takes_whole(models.TwoInputs(), 2)
    assert not takes_whole(nn.Bilinear(2, 2, 2), 2)


def test_running_changes_neither_model_nor_inputs_nor_gradients() -> None:
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)).train()
    before, x = state(model), X.copy()
    FRAMEWORK.predict(model, (x,))
    assert state(model) == before
    assert all(module.training for module in model.modules())
    np.testing.assert_array_equal(x, X)
    assert torch.is_grad_enabled()


class Rotary(nn.Module):
    """Makes a table at its first call, and keeps it until one for more steps is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None or len(self.table) < len(x):
            self.table = torch.cos(torch.arange(len(x))[:, None] * torch.ones(6))
        return self.head(self.line(x) * self.table[: len(x)])


def test_a_table_that_the_model_keeps_from_a_call_can_be_trained_with() -> None:
    model = Rotary().eval()
    FRAMEWORK.passed_over(model, (X[:2],))
    FRAMEWORK.predict(model, (X,))
    model.train()(torch.from_numpy(X)).sum().backward()
    assert model.line.weight.grad is not None
    assert FRAMEWORK.fit(Rotary(), PLAN, fitting(score=accuracy)).epochs == 3


def test_masks_of_pruning_count_as_zeros() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False))
    assert FRAMEWORK.count(model) == (100, 100)
    prune.l1_unstructured(model[0], "weight", 0.4)
    assert FRAMEWORK.count(model) == (100, 60)


def test_the_dtype_is_that_of_the_models_own_numbers() -> None:
    dtypes = [FRAMEWORK.float_dtype(m) for m in (small(), small().half(), small().double(), small().bfloat16())]
    assert dtypes == ["float32", "float16", "float64", "float32"]
    assert FRAMEWORK.float_dtype(nn.Embedding(3, 3).double()) == "float64"
    assert FRAMEWORK.float_dtype(nn.ReLU()) == "float32"


@pytest.mark.parametrize(
    ("model", "loss", "kind"),
    [
        (models.mlp(6, 3), nn.CrossEntropyLoss(), "logits"),
        (models.mlp(6, 3), functional.cross_entropy, "logits"),
        (models.mlp(6, 1), nn.BCEWithLogitsLoss(), "binary_logits"),
        (models.mlp(6, 1), nn.MSELoss(), "regression"),
        (nn.Sequential(models.mlp(6, 3), nn.Softmax(-1)), None, "probabilities"),
        (nn.Sequential(models.mlp(6, 3), nn.LogSoftmax(-1)), None, "log_probabilities"),
        (models.mlp(6, 3), None, None),
        (models.mlp(6, 3), lambda o, t: o.sum(), None),
    ],
)
def test_loss_and_last_layer_tell_what_the_output_means(model: nn.Module, loss: Any, kind: str | None) -> None:
    assert FRAMEWORK.declared_output(model, loss) == kind


# Training


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "rmsprop"])
def test_training_lowers_the_loss(optimizer: str) -> None:
    model = small()
    record = FRAMEWORK.fit(model, PLAN.adjusted(optimizer=optimizer), fitting(score=accuracy))
    assert record.epochs == 3
    assert record.losses[-1] < record.losses[0]
    assert record.scores[-1] > record.scores[0]
    assert record.seconds > 0
    assert not any(module.training for module in model.modules())


def test_the_best_state_is_kept_and_it_is_the_scored_one() -> None:
    model = small()
    scores = iter([0.5, 0.9, 0.7, 0.6])
    states: list[dict[str, bytes]] = []

    def score(trained: nn.Module) -> float:
        states.append(state(trained))
        return next(scores)

    record = FRAMEWORK.fit(model, PLAN, fitting(score=score))
    assert record.kept_epoch == 1
    assert record.scores == (0.5, 0.9, 0.7, 0.6)
    assert state(model) == states[1] != states[3]


def test_training_that_never_helps_gives_the_first_state_back() -> None:
    model = small()
    before = state(model)
    falling = iter([1.0, 2.0, 3.0, 4.0])
    record = FRAMEWORK.fit(model, PLAN, fitting(score=lambda _: next(falling), greater_is_better=False))
    assert record.kept_epoch == 0
    assert state(model) == before


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    def trained(seed: int) -> dict[str, bytes]:
        model = nn.Sequential(small(), nn.Dropout(0.3)).eval()
        FRAMEWORK.fit(model, PLAN.adjusted(seed=seed), fitting())
        return state(model)

    assert trained(1) == trained(1) != trained(2)


def test_the_users_random_state_is_left_alone() -> None:
    model = nn.Sequential(small(), nn.Dropout(0.3))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    FRAMEWORK.fit(model, PLAN, fitting())
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_generators_of_other_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    model = small()
    seeds.clear()
    FRAMEWORK.fit(model, PLAN, fitting())
    FRAMEWORK.initialise(model, 3)
    assert not seeds


class Told(nn.Linear):
    """Has a state that is no tensor."""

    steps = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += self.training
        return super().forward(x)

    def get_extra_state(self) -> Any:
        return {"steps": self.steps}

    def set_extra_state(self, state: Any) -> None:
        self.steps = state["steps"]


@pytest.mark.parametrize("averaging", ["none", "ema", "swa"])
def test_extra_state_that_is_no_tensor_is_kept_with_the_weights(averaging: Any) -> None:
    model = nn.Sequential(Told(6, 3))
    plan = replace(PLAN, averaging=averaging)
    record = FRAMEWORK.fit(model, plan, fitting(score=accuracy))
    assert record.kept_epoch > 0
    assert model[0].steps == 8 * record.kept_epoch
    kept = FRAMEWORK.state(model)
    model[0].steps = 0
    FRAMEWORK.load_state(model, kept)
    assert model[0].steps == 8 * record.kept_epoch


def test_frozen_parameters_stay_frozen_and_gradients_do_not_stay() -> None:
    model = small()
    first = next(model.parameters())
    first.requires_grad_(False)
    before = first.detach().clone()
    FRAMEWORK.fit(model, PLAN, fitting())
    assert torch.equal(first, before)
    assert not first.requires_grad
    assert all(p.grad is None for p in model.parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ModelError, match="require gradients"):
        FRAMEWORK.fit(model, PLAN, fitting())


def test_rows_without_weight_do_not_train() -> None:
    wrong = np.where(np.arange(400) % 2, Y, (Y + 1) % 3)
    weight = (np.arange(400) % 2).astype(np.float64)
    weighted, unweighted = small(), small()
    FRAMEWORK.fit(weighted, PLAN.adjusted(epochs=8), fitting((X, wrong, weight)))
    FRAMEWORK.fit(unweighted, PLAN.adjusted(epochs=8), fitting((X, wrong)))
    assert accuracy(weighted) > 0.85
    assert accuracy(weighted) > accuracy(unweighted) + 0.1


LABELS: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "int32": (small, (X, Y.astype(np.int32)), "logits"),
    "uint8": (small, (X, Y.astype(np.uint8)), "logits"),
    "whole floats": (small, (X, Y.astype(np.float32)), "logits"),
    "one-hot": (small, (X, np.eye(3, dtype=np.float32)[Y]), "logits"),
    "one-hot integers": (small, (X, np.eye(3, dtype=np.int64)[Y]), "logits"),
    "in a column": (small, (X, Y[:, None]), "logits"),
    "binary floats in a column": (lambda: models.mlp(6, 1), (X, (Y == 1)[:, None].astype(np.float32)), "binary_logits"),
    "binary, flat bool": (lambda: models.mlp(6, 1), (X, Y == 1), "binary_logits"),
    "values, flat": (lambda: models.mlp(6, 1), (X, X[:, 0].astype(np.float64)), "regression"),
    "values in a column": (lambda: models.mlp(6, 1), (X, X[:, :1]), "regression"),
    "float64 inputs": (small, (X.astype(np.float64), Y), "logits"),
    "probabilities": (lambda: nn.Sequential(small(), nn.Softmax(-1)), (X, Y), "probabilities"),
    "log probabilities": (lambda: nn.Sequential(small(), nn.LogSoftmax(-1)), (X, Y), "log_probabilities"),
    "one probability": (
        lambda: nn.Sequential(models.mlp(6, 1), nn.Sigmoid()),
        (X, (Y == 1).astype(np.int64)),
        "binary_probabilities",
    ),
    "several labels": (small, (X, (X[:, :3] > 0).astype(np.int64)), "multilabel_logits"),
}


@pytest.mark.parametrize("form", LABELS)
def test_labels_of_every_form_train(form: str) -> None:
    make, data, kind = LABELS[form]
    record = FRAMEWORK.fit(make(), PLAN, fitting(data, kind))
    assert record.losses[-1] < 0.97 * record.losses[0]


@pytest.mark.parametrize(
    ("loss", "classes", "labels"),
    [
        (nn.CrossEntropyLoss(), 3, Y.astype(np.int32)),
        (nn.CrossEntropyLoss(), 3, np.eye(3)[Y]),
        (nn.CrossEntropyLoss(reduction="none"), 3, Y),
        (nn.BCEWithLogitsLoss(), 1, (Y == 1).astype(np.int64)),
        (nn.BCEWithLogitsLoss(), 1, (Y == 1)[:, None].astype(np.float64)),
        (nn.MSELoss(), 1, X[:, 0].astype(np.float64)),
        (functional.cross_entropy, 3, Y),
        (lambda output, target: functional.cross_entropy(output, target) + 0, 3, Y),
    ],
)
def test_a_users_own_loss_takes_labels_of_any_form(loss: Any, classes: int, labels: Any) -> None:
    torch.manual_seed(0)
    own = FRAMEWORK.loss(None, loss, "logits")[0]
    record = FRAMEWORK.fit(models.mlp(6, classes, 16), PLAN, Fitting(Split((X, labels), "train"), own))
    assert record.losses[-1] < record.losses[0]


def test_batches_by_name_and_of_several_lengths_train() -> None:
    torch.manual_seed(0)
    batches = []
    for length in (3, 5, 7):
        ids = RNG.integers(0, 50, (32, length))
        batches.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids[:, 0] % 3})
    record = FRAMEWORK.fit(models.TextEncoder(), PLAN.adjusted(epochs=6), fitting(batches))
    assert record.losses[-1] < record.losses[0]


def test_what_holds_is_called_after_every_step_and_progress_tells() -> None:
    told: list[Progress] = []
    held: list[int] = []
    model = small()

    def hold(trained: nn.Module) -> None:
        held.append(1)
        trained[0].weight.zero_()  # type: ignore[index,operator]

    FRAMEWORK.fit(model, PLAN, fitting(hold=(hold,), progress=told.append))
    assert len(held) == 3 * 8
    assert (model[0].weight == 0).all()  # type: ignore[index]
    assert told[-1].done == told[-1].total == 3
    assert "loss" in told[-1].note


def test_a_limit_of_time_ends_training_and_says_so() -> None:
    record = FRAMEWORK.fit(small(), PLAN.adjusted(epochs=1000, max_seconds=0.05), fitting())
    assert record.epochs < 1000
    assert "max_seconds 0.05" in record.stopped


def test_an_interrupt_leaves_the_best_state_so_far_and_evaluation_mode() -> None:
    model = small()
    best: list[dict[str, bytes]] = []

    def score(trained: nn.Module) -> float:
        best.append(state(trained))
        return float(len(best))

    def stop(progress: Progress) -> None:
        if progress.done >= 2.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FRAMEWORK.fit(model, PLAN, fitting(score=score, progress=stop))
    assert state(model) == best[2]
    assert not model.training


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, None), "labels in train"),
        ((X, np.where(Y == 2, 9, Y)), "from 0 to 9"),
        ((X, np.where(Y == 2, -1, Y)), "from -1 to 1"),
        ((X, RNG.normal(size=(400, 5))), r"shape \(50, 5\)"),
        ((np.where(X > 2, np.nan, X), Y), "check train for NaN"),
    ],
)
def test_data_that_can_not_train_is_told(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FRAMEWORK.fit(small(), PLAN, fitting(data))


def with_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def test_batches_of_one_row_are_left_out_where_batch_norm_can_not_train_on_them() -> None:
    sizes = [(X[:40], Y[:40]), (X[40:41], Y[40:41]), (X[41:90], Y[41:90]), (X[90:91], Y[90:91])]
    record = FRAMEWORK.fit(with_norm(), PLAN, fitting(sizes))
    assert record.left_out.endswith("2 in an epoch")
    assert np.isfinite(record.losses).all()
    assert not FRAMEWORK.fit(small(), PLAN, fitting(sizes)).left_out, "without BatchNorm one row trains"
    assert not FRAMEWORK.fit(with_norm(), PLAN, fitting((X[:257], Y[:257]))).left_out, "arrays leave no row alone"
    with pytest.raises(DataError, match="batch_size=32"):
        FRAMEWORK.fit(with_norm(), PLAN, fitting(sizes[1::2]))


class NoGradient(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(x)


class OnlyEvaluates(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("needs the labels too")
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (NoGradient(6, 3), (X, Y), r"no torch\.no_grad\(\)"),
        (OnlyEvaluates(6, 3), (X, Y), r"inputs \(50, 6\) float32, and the model raised RuntimeError: needs the labels"),
        (nn.Linear(6, 3), (X[:, :5], Y), r"inputs \(50, 5\) float32"),
    ],
)
def test_a_model_that_does_not_train_on_the_batches_is_told(model: nn.Module, data: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        FRAMEWORK.fit(model, PLAN, fitting(data))


def test_half_precision_that_overflows_says_to_train_in_float32() -> None:
    model = models.mlp(6, 3, 16).half()
    with pytest.raises(DataError, match=r"model\.float\(\)"):
        FRAMEWORK.fit(model, PLAN, fitting((X * 60000, Y)))


def test_a_loss_that_is_no_function_is_told() -> None:
    with pytest.raises(ModelError, match="loss as a function"):
        FRAMEWORK.loss(None, "crossentropy", "logits")
    with pytest.raises(ModelError, match="the class CrossEntropyLoss"):
        FRAMEWORK.loss(None, nn.CrossEntropyLoss, "logits")


class Pixels(nn.Module):
    """A class for each pixel: (rows, 3, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


IMAGES = RNG.normal(size=(200, 3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss()])
def test_a_class_for_each_pixel_or_token_trains(loss: Any) -> None:
    pixels, tokens = (IMAGES, IMAGES.argmax(1)), (np.moveaxis(IMAGES, 1, -1).copy(), IMAGES.argmax(1))
    for make, data in ((Pixels, pixels), (lambda: nn.Linear(3, 3), tokens)):
        torch.manual_seed(0)
        given = Fitting(Split(data, "train"), FRAMEWORK.loss(None, loss, "logits")[0])
        record = FRAMEWORK.fit(make(), PLAN, given)
        assert record.losses[-1] < 0.97 * record.losses[0]


@pytest.mark.parametrize("kind", ["logits", "binary_logits", "regression"])
@pytest.mark.parametrize("user", [None, nn.MSELoss()])
def test_row_weights_in_a_column_are_those_of_the_rows(kind: Any, user: Any) -> None:
    output, weight = torch.from_numpy(RNG.normal(size=(6, 3 if kind == "logits" else 1))), torch.arange(6.0)
    target = torch.eye(3)[torch.arange(6) % 3] if kind == "logits" else torch.arange(6.0) % 2
    loss = FRAMEWORK.loss(None, user, kind)[0]
    assert loss(output, target, weight[:, None]).item() == pytest.approx(loss(output, target, weight).item())


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), functional.cross_entropy])
def test_row_weights_reach_torchs_own_losses(loss: Any) -> None:
    wrong = np.where(np.arange(400) % 2, Y, (Y + 1) % 3)
    weight = (np.arange(400) % 2).astype(np.float64)
    model = small()
    given = Fitting(Split((X, wrong, weight), "train"), FRAMEWORK.loss(None, loss, "logits")[0])
    FRAMEWORK.fit(model, PLAN.adjusted(epochs=8), given)
    assert accuracy(model) > 0.85


def test_row_weights_that_a_loss_can_not_take_are_told() -> None:
    def mine(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(output, target)

    given = Fitting(Split((X, Y, np.ones(400)), "train"), FRAMEWORK.loss(None, mine, "logits")[0])
    with pytest.warns(NbOptWarning, match="row weights of train do not reach it"):
        FRAMEWORK.fit(small(), PLAN, given)
