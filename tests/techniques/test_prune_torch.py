"""Pruning a torch model: zeros that hold through training, channels that are gone, masks that do not stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.data import Split
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.technique import Context, Draft
from nbopt.techniques._prune_torch import prunable_weights, remove_channels, with_masks
from nbopt.techniques.prune import Prune, magnitude_masks
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

RNG = np.random.default_rng(0)


def text(rows: int) -> dict[str, Any]:
    return {"input_ids": RNG.integers(0, 50, (rows, 6)), "attention_mask": np.ones((rows, 6), np.int64)}


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mlp": (models.mlp, (RNG.normal(size=(32, 64)).astype(np.float32),)),
    "cnn": (models.Cnn, (RNG.normal(size=(32, 1, 8, 8)).astype(np.float32),)),
    "lstm": (models.Lstm, (RNG.normal(size=(32, 5, 8)).astype(np.float32),)),
    "transformer": (models.TextEncoder, text(32)),
    "two inputs": (models.TwoInputs, (RNG.normal(size=(32, 6)).astype(np.float32), RNG.integers(0, 5, 32))),
}


def made(case: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    make, inputs = CASES[case]
    return make().eval(), inputs


@pytest.mark.parametrize("case", CASES)
def test_zeros_hold_through_training_and_masks_do_not_stay(case: str) -> None:
    model, inputs = made(case)
    names = set(model.state_dict())
    weights = {name: value.copy() for name, value in prunable_weights(model).items()}
    masks = magnitude_masks(weights, 0.6)
    hold, finish = with_masks(model, masks)
    labels = np.arange(32) % 2
    data = {**inputs, "labels": labels} if isinstance(inputs, dict) else (inputs, labels)
    fitting = Fitting(Split(data, "train"), FRAMEWORK.loss(None, None, "logits")[0], hold=(hold,))
    FRAMEWORK.fit(model, TrainingPlan(epochs=3, learning_rate=1e-2, batch_size=8), fitting)
    finished = finish(model)
    assert set(finished.state_dict()) == names
    parameters = dict(finished.named_parameters())
    moved = False
    for name, mask in masks.items():
        value = parameters[name].detach().numpy()
        assert (value[~mask] == 0).all(), name
        moved = moved or not np.array_equal(value[mask], weights[name][mask])
    assert moved
    assert not any(module._forward_pre_hooks for module in finished.modules())
    assert FRAMEWORK.predict(FRAMEWORK.clone(finished), inputs).shape[0] == 32


@pytest.mark.parametrize("case", CASES)
def test_while_training_the_model_computes_what_its_zeros_say(case: str) -> None:
    model, inputs = made(case)
    masks = magnitude_masks(prunable_weights(model), 0.6)
    hold, finish = with_masks(model, masks)
    hold(model)
    during = FRAMEWORK.predict(model, inputs)
    np.testing.assert_allclose(FRAMEWORK.predict(finish(model), inputs), during, atol=1e-6)


def test_embeddings_biases_and_norms_are_left_alone_and_tied_weights_taken_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(20, 8), "out": nn.Linear(8, 20, bias=False), "norm": nn.LayerNorm(8)})
    assert set(prunable_weights(model)) == {"out.weight"}
    model["out"].weight = model["embed"].weight  # type: ignore[assignment]
    assert prunable_weights(model) == {}
    twice = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    twice["b"].weight = twice["a"].weight  # type: ignore[assignment]
    assert set(prunable_weights(twice)) == {"a.weight"}


@pytest.mark.parametrize("case", ["mlp", "cnn", "transformer", "two inputs"])
def test_channels_are_taken_out_and_the_output_keeps_its_form(case: str) -> None:
    model, inputs = made(case)
    before = sum(p.numel() for p in model.parameters())
    example = (
        {name: value[:1] for name, value in inputs.items()}
        if isinstance(inputs, dict)
        else tuple(value[:1] for value in inputs)
    )
    outputs = FRAMEWORK.predict(model, inputs)
    smaller, _ = remove_channels(model, 0.5, example)
    assert sum(p.numel() for p in smaller.parameters()) < 0.9 * before
    assert FRAMEWORK.predict(smaller, inputs).shape == outputs.shape
    assert all(p.requires_grad and p.grad is None for p in smaller.parameters())
    assert not smaller.training


def test_frozen_parameters_stay_frozen() -> None:
    model, inputs = made("cnn")
    for parameter in model.features.parameters():  # type: ignore[union-attr]
        parameter.requires_grad_(False)
    smaller, _ = remove_channels(model, 0.5, (inputs[0][:1],))
    flags = {name: p.requires_grad for name, p in smaller.named_parameters()}
    assert not any(flag for name, flag in flags.items() if name.startswith("features"))
    assert all(flag for name, flag in flags.items() if name.startswith("head"))


def test_recurrent_layers_keep_their_size_and_a_net_of_them_alone_is_told() -> None:
    model, inputs = made("lstm")
    with pytest.raises(ModelError, match="without --structured"):
        remove_channels(model, 0.5, (inputs[0][:1],))


def test_a_net_of_one_layer_has_no_channels_to_give() -> None:
    with pytest.raises(ModelError, match="every layer makes the output"):
        remove_channels(nn.Linear(6, 3).eval(), 0.5, (np.ones((1, 6), np.float32),))


@pytest.mark.parametrize("structured", [False, True])
def test_fine_tuning_is_the_drafts_one_training(structured: bool, trained_cnn: nn.Module, digits: Digits) -> None:
    images = digits.x.reshape(-1, 1, 8, 8)
    work = Workload(trained_cnn, train=(images, digits.y), valid=(images, digits.y))
    draft = Prune(structured=structured, epochs=2, learning_rate=3e-4).apply(Draft(work.model), Context(work))
    assert (draft.plan.epochs, draft.plan.learning_rate) == (2, 3e-4)
    assert Prune(epochs=0).apply(Draft(work.model), Context(work)).plan.epochs == 0
    assert bool(draft.hold) != structured
    assert draft.model is not trained_cnn


class Joined(nn.Module):
    """An image, flattened, beside a table: torch-pruning 1.6.1 takes the flattened part for one of another size."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.table = nn.Linear(5, 16)
        self.head = nn.Sequential(nn.Linear(80, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.image(image), self.table(table).relu()], 1))


def test_what_a_concatenation_joins_keeps_its_width_where_it_must() -> None:
    torch.manual_seed(0)
    model = Joined().eval()
    example = (np.zeros((1, 3, 8, 8), np.float32), np.zeros((1, 5), np.float32))
    smaller, notes = remove_channels(model, 0.5, example)
    assert any("concatenation" in note for note in notes)
    assert smaller.head[0].weight.shape == (16, 80)
    assert model.head[0].weight.shape == (32, 80)


def test_parametrized_layers_are_narrowed() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 16)), nn.ReLU(), nn.Linear(16, 3)).eval()
    smaller, _ = remove_channels(model, 0.5, (np.zeros((1, 6), np.float32),))
    assert smaller[0].weight.shape == (8, 6)
    assert model[0].weight.shape == (16, 6)
