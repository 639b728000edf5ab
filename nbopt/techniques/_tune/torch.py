"""Dropout that a torch model has: its rates read and scaled."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def _places(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            yield module, "p"
        elif isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            yield module, "dropout"


def rates(model: nn.Module) -> list[float]:
    """Return the rate of each place that drops out."""
    return [float(getattr(module, name)) for module, name in _places(model)]


def scale(model: nn.Module, factor: float) -> None:
    """Multiply all rates, in place; none goes above 0.95."""
    for module, name in _places(model):
        setattr(module, name, min(0.95, float(getattr(module, name)) * factor))
