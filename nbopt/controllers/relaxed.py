"""The differentiable controller of FBNet (Wu et al. 2019, arXiv 1812.03443): all options at once, by gradients.

A network that computes a mixture of its options gives the loss and its gradient with respect to the weights of the
mixture; here is everything else. Weights are drawn by Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144) at a
temperature that falls, so that they end near one option. The cost in the loss is FBNet's in another form: it multiplies
the loss by log(latency) to a power, which means nothing for a network of less than a microsecond and turns at its unit;
here it is (cost / cost of the start) to a power, as in MnasNet (Tan et al. 2019, arXiv 1807.11626, equation 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbopt.controllers.grid import Allowed, Array, Grid, History, Settings, Untried
from nbopt.controllers.table import Table

HOT, COLD = 5.0, 0.1
"""Temperatures of the first and of the last step. FBNet starts at 5, and after its 90 epochs ends at 0.09."""

RATE = 0.05
"""Step of Adam for the logits. FBNet's is 0.01 for 90 epochs; a search here has a few hundred steps."""

POWER = 0.3
"""Exponent of the relative cost: half the cost makes up for a loss that is 23% greater."""

_MOMENTS = (0.9, 0.999)


class Relaxed:
    """Hold the odds of each option, drawn from and moved step by step.

    Args:
        grid: The space.
        steps: How many steps there will be, 1 or more: the temperature falls along them.
        table: What settings cost; None where only the loss counts.
        seed: Seed of its draws.
        rate: Step of the logits, above 0.
        power: Exponent of the relative cost, 0 or more; 0 lets only the loss count.
    """

    def __init__(
        self,
        grid: Grid,
        steps: int,
        table: Table | None = None,
        *,
        seed: int = 0,
        rate: float = RATE,
        power: float = POWER,
    ) -> None:
        self._grid, self._steps, self._table, self._rate, self._power = grid, max(1, steps), table, rate, power
        self._rng = np.random.default_rng([seed, 5])
        self.logits = [np.zeros(size) for size in grid.sizes]
        self._first = [np.zeros(size) for size in grid.sizes]
        self._second = [np.zeros(size) for size in grid.sizes]
        self.step = 0
        even = [np.full(size, 1 / size) for size in grid.sizes]
        start = None if grid.start is None else np.asarray(grid.start, np.int64)[None]
        self._usual = 1.0
        if table is not None:
            self._usual = float(table.at(start)[0]) if start is not None else table.expected(even)[0]

    @property
    def temperature(self) -> float:
        """Return the temperature of this step."""
        return float(HOT * (COLD / HOT) ** min(1.0, self.step / max(1, self._steps - 1)))

    def draw(self) -> list[Array]:
        """Return weights for each dimension's options, which sum to 1."""
        return [softmax((row + self._rng.gumbel(size=len(row))) / self.temperature) for row in self.logits]

    def learn(self, weights: Sequence[Array], loss: float, gradients: Sequence[Array]) -> float:
        """Move the odds by one step, and return what was made smaller: the loss times the relative cost.

        Args:
            weights: What `draw` returned for this step.
            loss: The network's, above 0, with options mixed by these weights.
            gradients: Of the loss, with respect to each of the weights.
        """
        factor, of_factor = self._cost(weights)
        total = loss * factor
        self.step += 1
        for at, row in enumerate(weights):
            outer = factor * gradients[at] + loss * of_factor[at]
            # Through the softmax. Its temperature is that which the weights were drawn at, the step before.
            inner = row * (outer - float(row @ outer)) / self._drawn_at
            self._adam(at, inner)
        return float(total)

    @property
    def _drawn_at(self) -> float:
        return float(HOT * (COLD / HOT) ** min(1.0, (self.step - 1) / max(1, self._steps - 1)))

    def _cost(self, weights: Sequence[Array]) -> tuple[float, list[Array]]:
        """Return what the loss is multiplied with, and its gradients."""
        if self._table is None or not self._power:
            return 1.0, [np.zeros(len(row)) for row in weights]
        cost, gradients = self._table.expected(weights)
        factor = (cost / self._usual) ** self._power
        return factor, [self._power * factor / cost * gradient for gradient in gradients]

    def _adam(self, at: int, gradient: Array) -> None:
        one, two = _MOMENTS
        self._first[at] = one * self._first[at] + (1 - one) * gradient
        self._second[at] = two * self._second[at] + (1 - two) * gradient**2
        mean, square = self._first[at] / (1 - one**self.step), self._second[at] / (1 - two**self.step)
        self.logits[at] = self.logits[at] - self._rate * mean / (np.sqrt(square) + 1e-8)

    def odds(self) -> list[Array]:
        """Return how likely each option of each dimension is."""
        return [softmax(row) for row in self.logits]

    def settings(self, most: int, allowed: Allowed | None = None) -> Settings:
        """Return the likeliest settings of a draw by the odds, the likeliest first; none twice.

        Args:
            most: Settings at most.
            allowed: Tells which settings may be returned; None allows all.
        """
        odds = self.odds()
        likeliest = np.asarray([[int(row.argmax()) for row in odds]])
        drawn = np.stack([self._rng.choice(len(row), size=4096, p=row) for row in odds], axis=1)
        found = Untried(self._grid, allowed).among(np.concatenate([likeliest, drawn]), History.empty(self._grid))
        chances = sum(np.log(row[found[:, at]] + 1e-12) for at, row in enumerate(odds))
        return found[np.argsort(-np.asarray(chances), kind="stable")[:most]]


def softmax(logits: Array) -> Array:
    """Return weights that sum to 1."""
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum())
