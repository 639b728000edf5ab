"""Smoothed labels, mixed rows and averaged weights in torch's training loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nbopt.data import Split
from nbopt.errors import DataError, ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._mixing import Mix
from nbopt.frameworks._torch_losses import loss_for
from nbopt.frameworks._torch_mixing import mixed, mixed_loss
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.training import TrainingPlan
from tests.conftest import Digits
from tests.models import Cnn, Lstm, TextEncoder, TwoInputs, mlp

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 3, -100, 2, 1])
WEIGHT = torch.rand(6, generator=GENERATOR)
ONE_HOT = functional.one_hot(LABELS.clamp_min(0), 4).float()


@pytest.mark.parametrize("user", [None, nn.CrossEntropyLoss(), functional.cross_entropy])
def test_smoothed_classes_are_torchs_own(user: Any) -> None:
    loss = loss_for(user, "logits")[0].smoothed(0.1)
    wanted = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(loss(LOGITS, LABELS, None), wanted)
    rows = functional.cross_entropy(LOGITS, LABELS.clamp_min(0), label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(loss(LOGITS, LABELS.clamp_min(0), WEIGHT), (rows * WEIGHT).sum() / WEIGHT.sum())


def test_smoothed_columns_and_tokens_are_torchs_own() -> None:
    loss = loss_for(None, "logits")[0].smoothed(0.2)
    wanted = functional.cross_entropy(LOGITS, ONE_HOT, label_smoothing=0.2)
    torch.testing.assert_close(loss(LOGITS, ONE_HOT, None), wanted)
    tokens, labels = LOGITS.reshape(2, 3, 4), LABELS.reshape(2, 3)
    wanted = functional.cross_entropy(tokens.movedim(-1, 1), labels, label_smoothing=0.2)
    torch.testing.assert_close(loss(tokens, labels, None), wanted)


@pytest.mark.parametrize(
    ("user", "kind", "outputs"),
    [
        (None, "probabilities", LOGITS.softmax(-1)),
        (None, "log_probabilities", LOGITS.log_softmax(-1)),
        (nn.NLLLoss(), "log_probabilities", LOGITS.log_softmax(-1)),
    ],
)
def test_probabilities_are_smoothed_alike(user: Any, kind: Any, outputs: torch.Tensor) -> None:
    wanted = functional.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    torch.testing.assert_close(loss_for(user, kind)[0].smoothed(0.1)(outputs, LABELS, None), wanted)


@pytest.mark.parametrize("user", [None, nn.BCEWithLogitsLoss(), functional.binary_cross_entropy_with_logits])
@pytest.mark.parametrize("kind", ["binary_logits", "multilabel_logits"])
def test_yes_or_no_is_smoothed_to_both(user: Any, kind: Any) -> None:
    outputs = LOGITS if kind.startswith("multi") else LOGITS[:, 0]
    labels = (outputs > 0.3).long()
    wanted = functional.binary_cross_entropy_with_logits(outputs, labels * 0.9 + 0.05)
    torch.testing.assert_close(loss_for(user, kind)[0].smoothed(0.1)(outputs, labels, None), wanted)
    inferred = loss_for(None, kind.replace("logits", "probabilities"))[0].smoothed(0.1)
    torch.testing.assert_close(inferred(outputs.sigmoid(), labels, None), wanted)


@pytest.mark.parametrize(
    ("user", "kind", "words"),
    [
        (None, "regression", "values"),
        (nn.MSELoss(), "regression", "values"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "logits", "already"),
        (lambda output, target: (output - target).sum(), "logits", "your own"),
    ],
)
def test_what_can_not_be_smoothed_is_told(user: Any, kind: Any, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        loss_for(user, kind)[0].smoothed(0.1)
    assert words in caught.value.came
    assert caught.value.do


def test_a_mixed_row_is_between_two() -> None:
    x, ids = torch.rand(6, 3), torch.rand(6, 1, 4, 4)
    mix = Mix(np.array([1, 0, 3, 2, 5, 4]), 0.75)
    blended = mixed((x, ids), mix)
    torch.testing.assert_close(blended[0], 0.75 * x + 0.25 * x[mix.order])
    torch.testing.assert_close(blended[1], 0.75 * ids + 0.25 * ids[mix.order])
    cut = mixed({"image": ids}, Mix(mix.order, 0.5, (0.0, 0.5, 0.0, 1.0)))
    assert isinstance(cut, dict)
    torch.testing.assert_close(cut["image"][:, :, :2], ids[mix.order][:, :, :2])
    torch.testing.assert_close(cut["image"][:, :, 2:], ids[:, :, 2:])


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_mixed_losses_are_the_loss_of_the_mixed_label(weight: torch.Tensor | None) -> None:
    mix = Mix(np.array([1, 0, 3, 2, 5, 4]), 0.75)
    loss = loss_for(None, "logits")[0]
    whole = 0.75 * ONE_HOT + 0.25 * ONE_HOT[mix.order]
    wanted = functional.cross_entropy(LOGITS, whole, reduction="none")
    if weight is None:
        got = mixed_loss(lambda t, w: loss(LOGITS, t, w), LABELS.clamp_min(0), None, mix)
        torch.testing.assert_close(got, wanted.mean())
    else:
        got = mixed_loss(lambda t, w: loss(LOGITS, t, w), LABELS.clamp_min(0), weight, mix)
        one, other = (functional.cross_entropy(LOGITS, x, reduction="none") for x in (ONE_HOT, ONE_HOT[mix.order]))
        own = (one * weight).sum() / weight.sum()
        partners = (other * weight[mix.order]).sum() / weight.sum()
        torch.testing.assert_close(got, 0.75 * own + 0.25 * partners)


def states_of(model: nn.Module, plan: TrainingPlan, data: Any) -> list[dict[str, torch.Tensor]]:
    """Train, and return the state after each step, and the final one."""
    seen: list[dict[str, torch.Tensor]] = [FRAMEWORK.state(model)]
    loss = loss_for(None, "logits")[0]
    fitting = Fitting(Split(data, "train"), loss, hold=(lambda m: seen.append(FRAMEWORK.state(m)),))
    FRAMEWORK.fit(model, plan, fitting)
    return [*seen, FRAMEWORK.state(model)]


def test_a_moving_average_is_what_a_training_leaves(digits: Digits) -> None:
    torch.manual_seed(0)
    plan = TrainingPlan(epochs=2, batch_size=250, averaging="ema", ema_decay=0.6, learning_rate=1e-2)
    states = states_of(mlp(), plan, digits.train)
    # `hold` sees the average after each epoch too: masks must hold in it as well.
    steps, final = [*states[1:5], *states[6:10]], states[-1]
    for name, value in states[0].items():
        mean = value.clone()
        for step, state in enumerate(steps, start=1):
            decay = min(0.6, (1 + step) / (10 + step))
            mean = decay * mean + (1 - decay) * state[name]
        torch.testing.assert_close(final[name], mean)


def test_swa_is_the_mean_of_the_last_epochs_with_new_statistics(digits: Digits) -> None:
    torch.manual_seed(0)
    images = digits.x[:500].reshape(-1, 1, 8, 8), digits.y[:500]
    plan = TrainingPlan(epochs=4, batch_size=250, averaging="swa", swa_start=0.5, learning_rate=1e-2)
    model = Cnn()
    states = states_of(model, plan, images)
    ends = [states[6], states[9]]
    for name, value in states[-1].items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, (ends[0][name] + ends[1][name]) / 2)
    first = functional.conv2d(torch.from_numpy(images[0]), model.features[0].weight, model.features[0].bias, padding=1)
    torch.testing.assert_close(model.features[1].running_mean, first.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [{"averaging": "ema"}, {"averaging": "swa"}], ids=str)
def test_the_average_is_what_validation_judges(digits: Digits, changes: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, judged = mlp(), []
    x = torch.from_numpy(digits.valid[0])

    def score(module: nn.Module) -> float:
        with torch.no_grad():
            judged.append(module(x).clone())
        return float(len(judged))

    fitting = Fitting(Split(digits.train, "train"), loss_for(None, "logits")[0], score)
    record = FRAMEWORK.fit(model, TrainingPlan(epochs=2, learning_rate=1e-2, swa_start=0.0, **changes), fitting)
    assert record.kept_epoch == 2
    with torch.no_grad():
        torch.testing.assert_close(model(x), judged[-1])


@pytest.mark.parametrize(
    "changes", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1}], ids=str
)
def test_images_train_by_it_and_repeat(digits: Digits, changes: dict[str, Any]) -> None:
    images = digits.x[:600].reshape(-1, 1, 8, 8), digits.y[:600], np.ones(600, np.float32)
    plan = TrainingPlan(epochs=4, batch_size=50, learning_rate=1e-2, averaging="ema", ema_decay=0.9, **changes)
    outputs = []
    for _ in range(2):
        torch.manual_seed(0)
        model = Cnn()
        record = FRAMEWORK.fit(model, plan, Fitting(Split(images, "train"), loss_for(None, "logits")[0]))
        assert np.isfinite(record.losses).all()
        outputs.append(FRAMEWORK.predict(model, (digits.x[1000:].reshape(-1, 1, 8, 8),)))
    np.testing.assert_array_equal(*outputs)
    assert (outputs[0].argmax(-1) == digits.y[1000:]).mean() > 0.8


def test_sequences_and_values_mix_tokens_do_not() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 5, 8)).astype(np.float32), rng.integers(0, 10, 32)
    FRAMEWORK.fit(
        Lstm(), TrainingPlan(epochs=1, mixup=0.2), Fitting(Split((x, y), "train"), loss_for(None, "logits")[0])
    )
    values = Split((x[:, 0], rng.normal(size=32).astype(np.float32)), "train")
    FRAMEWORK.fit(nn.Linear(8, 1), TrainingPlan(epochs=1, mixup=0.2), Fitting(values, loss_for(None, "regression")[0]))
    tokens = {"input_ids": rng.integers(0, 50, (32, 6)), "attention_mask": np.ones((32, 6), np.int64), "labels": y % 3}
    with pytest.raises(DataError, match="token"):
        FRAMEWORK.fit(
            TextEncoder(),
            TrainingPlan(epochs=1, mixup=0.2),
            Fitting(Split(tokens, "train"), loss_for(None, "logits")[0]),
        )
    several = Split(((rng.normal(size=(32, 6)).astype(np.float32), rng.integers(0, 5, 32)), y % 2), "train")
    with pytest.raises(DataError, match="category"):
        FRAMEWORK.fit(TwoInputs(), TrainingPlan(epochs=1, mixup=0.2), Fitting(several, loss_for(None, "logits")[0]))
