"""Lower regularization to torch: Dropout and norms as hooks, which no copy, export or state_dict stumbles over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from nbopt.batches import Batch, Inputs
from nbopt.techniques._regularize.places import Place, Site
from nbopt.techniques._regularize_torch import dropout, norms
from nbopt.techniques._regularize_torch.places import traced


class TorchLowering:
    """Do for a torch module what regularization asks of a framework; see `_regularize.lowering.Lowering`."""

    def places(self, model: nn.Module, example: Inputs) -> list[Place]:
        """Return the layers as they are called."""
        return traced(model, example).places

    def with_dropout(self, model: nn.Module, sites: Sequence[Site]) -> nn.Module:
        """Return the model with Dropout."""
        dropout.put(model, sites)
        return model

    def with_norms(self, model: nn.Module, kind: str, places: Sequence[Place], batches: Iterable[Batch]) -> nn.Module:
        """Return the model with norms."""
        norms.insert(model, kind, norms.measured(model, places, batches))
        return model

    def deployed(self, model: nn.Module, example: Inputs) -> tuple[Any, int, int]:
        """Return the model without Dropout and with BatchNorm folded."""
        dropped = dropout.take_out(model)
        return model, dropped, norms.fold(model, traced(model, example).followed)


LOWERING = TorchLowering()
