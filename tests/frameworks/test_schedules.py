"""Both frameworks move the rate alike, spare the same weights, and stop and keep alike."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import torch

from nbopt.data import Split
from nbopt.errors import OptionError
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks import _keras_schedules as in_keras
from nbopt.frameworks import _torch_schedules as in_torch
from nbopt.schedules import SCHEDULES
from nbopt.training import TrainingPlan, TrainingRecord
from tests.conftest import Digits
from tests.models import Cnn, TextEncoder, mlp, train
from tests.runtimes.keras_models import model as keras_model

CURVES = [
    {"schedule": "constant"}, {"schedule": "constant", "warmup": 0.2}, {"schedule": "step"},
    {"schedule": "step", "drops": 3, "decay": 0.5, "warmup": 0.1}, {"schedule": "exponential", "decay": 0.01},
    {"schedule": "exponential", "decay": 1e6}, {"schedule": "cosine"}, {"schedule": "cosine", "warmup": 0.1},
    {"schedule": "cosine", "cycles": 3}, {"schedule": "cosine", "cycles": 3, "warmup": 0.1},
    {"schedule": "one_cycle"}, {"schedule": "one_cycle", "warmup": 0.5}, {"schedule": "one_cycle", "warmup": 0.025},
    {"schedule": "wsd"},
    {"schedule": "wsd", "warmup": 0.1, "cooldown": 0.4}, {"schedule": "wsd", "cooldown": 1.0},
]  # fmt: skip


def torch_curve(plan: TrainingPlan, steps: int | None, epochs: int, per_epoch: int) -> list[float]:
    optimizer = in_torch.make_optimizer(plan, mlp())
    rates = in_torch.Rates(plan, optimizer, steps)
    found = []
    for _ in range(epochs):
        for _ in range(per_epoch):
            found.append(rates.now)
            optimizer.step()
            rates.step()
        rates.end_epoch(1.0)
    return found


def keras_curve(plan: TrainingPlan, steps: int | None, epochs: int, per_epoch: int) -> list[float]:
    model = keras_model("mlp")
    optimizer = in_keras.make_optimizer(plan, model, steps)
    rates = in_keras.Rates(plan, model, optimizer, steps)
    zeros = [keras.ops.zeros_like(v) for v in model.trainable_variables]
    found = []
    for epoch in range(epochs):
        rates.begin_epoch(epoch)
        for _ in range(per_epoch):
            found.append(rates.now)
            optimizer.apply_gradients(zip(zeros, model.trainable_variables, strict=True))
            rates.step()
        rates.end_epoch(epoch, 1.0)
    return found


@pytest.mark.parametrize("changes", CURVES, ids=lambda changes: "-".join(map(str, changes.values())))
def test_torch_and_keras_move_the_rate_alike(changes: dict[str, Any]) -> None:
    plan = TrainingPlan(epochs=4, learning_rate=0.02, **changes)
    first, second = torch_curve(plan, 10, 4, 10), keras_curve(plan, 10, 4, 10)
    assert first == pytest.approx(second, rel=1e-4, abs=1e-8)
    assert all(rate >= 0 for rate in first)
    assert max(first) == pytest.approx(0.02) or changes.get("decay", 0) > 1


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if s not in ("schedule_free", "plateau")])
def test_without_a_known_number_of_steps_it_moves_by_epochs(schedule: str) -> None:
    plan = TrainingPlan(epochs=6, learning_rate=0.02, schedule=schedule, warmup=0.3)
    first, second = torch_curve(plan, None, 6, 2), keras_curve(plan, None, 6, 2)
    assert first == pytest.approx(second, rel=1e-4, abs=1e-8)
    assert first[::2] == first[1::2]


def test_the_curves_are_what_their_names_say() -> None:
    def rates(**changes: Any) -> list[float]:
        return torch_curve(TrainingPlan(epochs=1, learning_rate=1.0, optimizer="sgd", **changes), 100, 1, 100)

    assert rates(schedule="step", drops=3, decay=0.5)[::25] == pytest.approx([1, 0.5, 0.25, 0.125])
    cosine = rates(schedule="cosine", cycles=2)
    assert cosine[:50] == pytest.approx(cosine[50:])
    assert cosine[25] == pytest.approx(0.5)
    wsd = rates(schedule="wsd", warmup=0.1, cooldown=0.25)
    assert wsd[:10] == sorted(wsd[:10])
    assert wsd[10:75] == pytest.approx([1.0] * 65)
    assert wsd[75:] == sorted(wsd[75:], reverse=True)
    assert wsd[-1] == pytest.approx(1 / 25)
    cycle = rates(schedule="one_cycle")
    assert np.argmax(cycle) == 29
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle[-1] < 1e-5


def test_a_plateau_drops_the_rate_after_as_many_epochs_in_both() -> None:
    plan = TrainingPlan(epochs=6, learning_rate=0.02, schedule="plateau", plateau=2, decay=0.5)
    # The same value after each epoch: the first is the best, and every second one after it is one too many.
    first, second = torch_curve(plan, 3, 6, 3), keras_curve(plan, 3, 6, 3)
    assert first == pytest.approx(second)
    assert first[::3] == pytest.approx([0.02, 0.02, 0.02, 0.01, 0.01, 0.005])
    rising = torch_curve(plan.adjusted(warmup=0.25), 3, 6, 3)
    assert rising == pytest.approx(keras_curve(plan.adjusted(warmup=0.25), 3, 6, 3), rel=1e-5)
    assert rising[0] < rising[1] < rising[6] == pytest.approx(0.02)


def test_weight_decay_spares_norms_biases_and_embeddings() -> None:
    plan = TrainingPlan(epochs=1, learning_rate=0.1, weight_decay=0.5, optimizer="sgd")
    for model in (Cnn(), TextEncoder()):
        optimizer = in_torch.make_optimizer(plan, model)
        decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
        assert optimizer.param_groups[0]["weight_decay"] == 0.5
        assert optimizer.param_groups[1]["weight_decay"] == 0.0
        for name, p in model.named_parameters():
            matrix = p.ndim > 1 and "embed" not in name
            assert (id(p) in decayed) == matrix, name
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    text = keras_model("text")
    before = {v.path: v.numpy() for v in text.trainable_variables}
    optimizer = in_keras.make_optimizer(plan, text, 5)
    optimizer.apply_gradients([(keras.ops.zeros_like(v), v) for v in text.trainable_variables])
    for variable in text.trainable_variables:
        changed = not np.array_equal(variable.numpy(), before[variable.path])
        assert changed == variable.name.startswith("kernel"), variable.path


def test_decoupled_decay_of_adam_is_adamw() -> None:
    plan = TrainingPlan(epochs=1, weight_decay=0.1)
    found = []
    for name in ("adam", "adamw"):
        torch.manual_seed(0)
        model = mlp()
        optimizer = in_torch.make_optimizer(plan.adjusted(optimizer=name), model)
        for _ in range(3):
            model(torch.ones(2, 64)).square().sum().backward()
            optimizer.step()
        found.append(model[0].weight.detach().numpy())
    np.testing.assert_allclose(*found)


def fitted(kind: str, plan: TrainingPlan, digits: Digits, **more: Any) -> tuple[Any, TrainingRecord, Fitting]:
    """Train a classifier of digits by a plan, scored by accuracy."""
    x, y = digits.train
    valid = Split(digits.valid, "valid")
    torch.manual_seed(0)
    if kind == "torch":
        model: Any = mlp()
        work_loss = framework_of(model).loss(model, None, "logits")[0]
    else:
        model = keras_model("mlp")
        work_loss = framework_of(model).loss(model, None, "logits")[0]
    framework = framework_of(model)

    def score(trained: Any) -> float:
        return float((framework.predict(trained, (digits.valid[0],)).argmax(1) == digits.valid[1]).mean())

    fitting = Fitting(Split((x, y), "train"), work_loss, score=score, valid=valid, **more)
    return model, framework.fit(model, plan, fitting), fitting


BOTH = pytest.mark.parametrize("kind", ["torch", "keras"])


@BOTH
def test_early_stopping_ends_it_and_keeps_the_best_by_what_is_watched(kind: str, digits: Digits) -> None:
    plan = TrainingPlan(epochs=60, learning_rate=0.02, batch_size=100, patience=3, monitor="loss")
    model, record, fitting = fitted(kind, plan, digits)
    losses = record.valid_losses
    assert record.epochs < 60
    assert "the loss on validation did not get better in 3 epochs" in record.stopped
    assert len(losses) == len(record.scores) == record.epochs + 1
    assert record.kept_epoch == int(np.argmin(losses)) == record.epochs - 3
    assert len(record.rates) == record.epochs
    # What is left is the state of that epoch.
    again = framework_of(model).fit(model, TrainingPlan(epochs=1, patience=1, learning_rate=1e-9), fitting)
    assert again.valid_losses[0] == pytest.approx(losses[record.kept_epoch], rel=1e-4)


@BOTH
def test_the_metric_can_be_watched_or_both(kind: str, digits: Digits) -> None:
    plan = TrainingPlan(epochs=40, learning_rate=0.02, batch_size=100, patience=2, monitor="metric")
    _, record, _ = fitted(kind, plan, digits)
    assert record.valid_losses == ()
    assert record.scores[record.kept_epoch] == max(record.scores)
    _, both, _ = fitted(kind, plan.adjusted(monitor="both"), digits)
    assert both.epochs >= record.epochs
    assert both.scores[both.kept_epoch] == max(both.scores)
    ties = [loss for loss, score in zip(both.valid_losses, both.scores, strict=True) if score == max(both.scores)]
    assert both.valid_losses[both.kept_epoch] == min(ties)


@BOTH
def test_a_training_that_nobody_watches_goes_to_its_end(kind: str, digits: Digits) -> None:
    _, record, _ = fitted(kind, TrainingPlan(epochs=3, batch_size=100), digits)
    assert (record.epochs, record.stopped, record.valid_losses) == (3, "", ())
    assert record.rates == pytest.approx((1e-3,) * 3)


@BOTH
def test_the_loss_on_validation_is_that_of_all_rows_at_once(kind: str, digits: Digits) -> None:
    model, record, _ = fitted(kind, TrainingPlan(epochs=1, batch_size=100, patience=1, keep_best=False), digits)
    logits = framework_of(model).predict(model, (digits.valid[0],)).astype(np.float64)
    logits -= logits.max(1, keepdims=True)
    picked = logits[np.arange(len(logits)), digits.valid[1]] - np.log(np.exp(logits).sum(1))
    assert record.valid_losses[-1] == pytest.approx(-picked.mean(), rel=1e-4)


@BOTH
def test_each_step_is_told_and_can_end_it(kind: str, digits: Digits) -> None:
    told: list[tuple[float, float]] = []

    def each(loss: float, rate: float) -> bool:
        told.append((loss, rate))
        return len(told) == 7

    plan = TrainingPlan(epochs=3, batch_size=100, schedule="exponential", learning_rate=1e-5, decay=1e3)
    _, record, _ = fitted(kind, plan, digits, each_step=each)
    assert len(told) == 7
    assert "step 7" in record.stopped
    rates = [rate for _, rate in told]
    assert rates == pytest.approx([1e-5 * 1e3 ** (i / 30) for i in range(7)], rel=1e-4)


@BOTH
@pytest.mark.parametrize("monitor", ["loss", "metric"])
def test_a_plateau_follows_validation(kind: str, monitor: str, digits: Digits) -> None:
    plan = TrainingPlan(epochs=12, learning_rate=0.05, batch_size=100, schedule="plateau", plateau=1, decay=0.5)
    _, record, _ = fitted(kind, plan.adjusted(monitor=monitor), digits)
    values = list(record.valid_losses) if monitor == "loss" else [-score for score in record.scores]
    expected, best, rate = [], np.inf, 0.05
    for value in values[1:]:
        expected.append(rate)
        if value < best:
            best = value
        else:
            rate *= 0.5
    assert record.rates == pytest.approx(expected, rel=1e-4)
    assert len(set(record.rates)) > 1


@BOTH
def test_schedule_free_judges_and_keeps_the_average(kind: str, digits: Digits) -> None:
    plan = TrainingPlan(epochs=8, learning_rate=0.01, batch_size=100, schedule="schedule_free", warmup=0.1)
    model, record, fitting = fitted(kind, plan, digits)
    assert max(record.scores) > 0.9
    assert fitting.score is not None
    # The weights that are left are those that were judged.
    assert fitting.score(model) == record.scores[record.kept_epoch]
    last, unwatched, _ = fitted(kind, plan.adjusted(keep_best=False), digits)
    assert unwatched.scores == ()
    assert fitting.score(last) == record.scores[-1]


@BOTH
def test_schedule_free_decays_the_weights_that_steps_are_made_on(kind: str, digits: Digits) -> None:
    norms = []
    for decay in (0.0, 10.0):
        plan = TrainingPlan(
            epochs=4, learning_rate=0.01, batch_size=100, schedule="schedule_free", weight_decay=decay, keep_best=False
        )
        model, record, _ = fitted(kind, plan, digits)
        assert record.losses[-1] < record.losses[0]
        weights = [value for name, value in framework_of(model).weights(model) if value.ndim > 1]
        norms.append(sum(float((value**2).sum()) for value in weights))
    assert norms[1] < 0.5 * norms[0]


def test_schedule_free_measures_batch_norm_for_the_average(digits: Digits) -> None:
    x, y = digits.train
    images = x.reshape(-1, 1, 8, 8)
    torch.manual_seed(0)
    model = train(Cnn(), images, y, steps=5)
    framework = framework_of(model)
    loss = framework.loss(model, None, "logits")[0]
    plan = TrainingPlan(epochs=3, learning_rate=0.01, batch_size=100, schedule="schedule_free")
    framework.fit(model, plan, Fitting(Split((images, y), "train"), loss))
    with torch.no_grad():
        first = model.features[0](torch.from_numpy(images))
    mean = first.mean((0, 2, 3)).numpy()
    np.testing.assert_allclose(model.features[1].running_mean.numpy(), mean, rtol=0.05, atol=0.02)
    assert model.features[1].momentum == 0.1


@pytest.mark.parametrize("rows", [33, 1])
def test_schedule_free_passes_over_a_row_that_has_no_variance(rows: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(33, 64)).astype(np.float32), rng.integers(0, 10, 33)
    batches = [(x[start : start + 32], y[start : start + 32]) for start in (0, 32)]
    norm = torch.nn.BatchNorm1d(64)
    model = torch.nn.Sequential(norm, mlp())
    loss = framework_of(model).loss(model, None, "logits")[0]
    if rows == 1:
        images = [(x[row : row + 1].reshape(1, 1, 8, 8), y[row : row + 1]) for row in range(6)]
        batches, norm = images, torch.nn.BatchNorm2d(1)
        model = torch.nn.Sequential(norm, torch.nn.Flatten(), mlp())
    plan = TrainingPlan(epochs=2, schedule="schedule_free")
    framework_of(model).fit(model, plan, Fitting(Split(batches, "train"), loss))
    # A picture has a variance of its own.
    seen = torch.from_numpy(x[:32] if rows == 33 else x[:6].reshape(-1, 1))
    torch.testing.assert_close(norm.running_mean, seen.mean(0), rtol=1e-4, atol=1e-5)


def test_keras_has_schedule_free_for_adam_alone() -> None:
    plan = TrainingPlan(epochs=1, schedule="schedule_free", optimizer="sgd")
    with pytest.raises(OptionError, match="adamw"):
        in_keras.make_optimizer(plan, keras_model("mlp"), 5)
