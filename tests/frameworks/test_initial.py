"""Weights drawn anew: others than before, the same for the same seed, and nothing of the user's random state spent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nbopt.errors import ModelError
from nbopt.frameworks import framework_of
from tests.models import Cnn, Lstm, TextEncoder, TwoInputs, mlp
from tests.runtimes.keras_models import model as keras_model

TORCH = {"mlp": mlp, "cnn": Cnn, "lstm": Lstm, "text": TextEncoder, "two": TwoInputs}


def made(kind: str, framework: str) -> Any:
    torch.manual_seed(0)  # two draws of a matrix of few numbers may differ in size by chance
    return TORCH[kind]() if framework == "torch" else keras_model(kind)


def weights(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: value.copy() for name, value in framework_of(model).weights(model)}


@pytest.mark.parametrize("framework", ["torch", "keras"])
@pytest.mark.parametrize("kind", sorted(TORCH))
def test_every_matrix_is_drawn_anew(kind: str, framework: str) -> None:
    model = made(kind, framework)
    verb = framework_of(model)
    before = weights(model)
    state = torch.get_rng_state()
    assert verb.initialise(model, 3) is model
    assert torch.equal(state, torch.get_rng_state())
    first = weights(model)
    for name, value in before.items():
        if value.ndim > 1:
            assert not np.array_equal(first[name], value), name
            # Of the size that the layer was made with, not some other distribution.
            assert 0.5 < first[name].std() / value.std() < 2, name
    again = weights(verb.initialise(model, 3))
    other = weights(verb.initialise(model, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)
    assert any(not np.array_equal(other[name], value) for name, value in first.items())


def test_batch_norm_forgets() -> None:
    model = Cnn()
    model(torch.randn(50, 1, 8, 8) + 3)
    framework_of(model).initialise(model, 0)
    assert float(model.features[1].running_mean.abs().max()) == 0.0


def test_an_lstm_of_keras_keeps_its_open_forget_gate() -> None:
    model = keras_model("lstm")
    framework_of(model).initialise(model, 0)
    bias = next(value for name, value in framework_of(model).weights(model) if name.endswith("lstm_cell/bias"))
    assert bias[16:32].tolist() == [1.0] * 16
    assert not bias[:16].any()


def test_what_can_not_be_drawn_is_told() -> None:
    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = torch.nn.Parameter(torch.randn(4, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.positions

    with pytest.raises(ModelError, match="positions"):
        framework_of(Table()).initialise(Table(), 0)
