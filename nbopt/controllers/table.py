"""What a setting costs, put together from costs of its parts: measured once for each part, added up for any setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nbopt.controllers.grid import Array, Settings
from nbopt.errors import OptionError


@dataclass(frozen=True)
class Term:
    """Say what one part of a candidate costs.

    Args:
        dimensions: The dimensions that it depends on, each once: of a convolution the width before it, its own, its
            kernel.
        costs: For each of their options: an axis for each dimension, in that order.
    """

    dimensions: tuple[int, ...]
    costs: Array

    def __post_init__(self) -> None:
        if self.costs.ndim != len(self.dimensions) or len(set(self.dimensions)) != len(self.dimensions):
            raise OptionError(
                "costs with an axis for each dimension, each once",
                f"shape {self.costs.shape} for dimensions {self.dimensions}",
            )


@dataclass(frozen=True)
class Table:
    """Add up what the parts of a candidate cost.

    Args:
        terms: The parts.
        constant: What every candidate costs: the parts that never change, and the call.
    """

    terms: tuple[Term, ...]
    constant: float = 0.0

    def at(self, settings: Settings) -> Array:
        """Return the cost of each of n settings."""
        total = np.full(len(settings), self.constant)
        for term in self.terms:
            total += term.costs[tuple(settings[:, at] for at in term.dimensions)]
        return total

    def expected(self, weights: Sequence[Array]) -> tuple[float, list[Array]]:
        """Return the mean cost where each dimension is drawn by weights of its own, and its gradients.

        Args:
            weights: For each dimension how likely each option is.
        """
        total = self.constant
        gradients = [np.zeros(len(row)) for row in weights]
        for term in self.terms:
            axes = list(range(len(term.dimensions)))
            for left in axes:
                rest = [axis for axis in axes if axis != left]
                operands = [part for axis in rest for part in (weights[term.dimensions[axis]], [axis])]
                gradients[term.dimensions[left]] += np.einsum(term.costs, axes, *operands, [left])
            if axes:
                first = term.dimensions[0]
                operands = [part for axis in axes[1:] for part in (weights[term.dimensions[axis]], [axis])]
                total += float(np.einsum(term.costs, axes, *operands, [0]) @ weights[first])
            else:
                total += float(term.costs)
        return total, gradients
