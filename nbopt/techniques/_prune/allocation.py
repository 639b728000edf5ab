"""How much each layer gives, from what it costs to prune it alone. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nbopt.narrowing.widths import MOST

LEVELS = (0.25, 0.5, 0.75)
"""Shares at which each layer alone is pruned to see what it costs."""
TINY = 1e-12  # a slope below it is none: what it would allow beyond the last level overflows


def share_for(losses: Sequence[float], allowed: float, levels: Sequence[float] = LEVELS) -> float:
    """Return the largest share of a layer that costs no more than allowed, 0 to 0.9.

    Args:
        losses: Quality lost at each level. Between levels it is taken to rise evenly, from 0 at a share of 0;
            a gain counts as no loss, and a loss that falls again with more pruning as noise.
        allowed: Loss that is allowed, 0 or more.
        levels: The levels, rising.
    """
    shares = np.array([0.0, *levels])
    rising = np.maximum.accumulate(np.maximum(0.0, np.array([0.0, *losses])))
    if rising[-1] <= allowed:
        # Beyond the last level, on along the steepest rise there was: nothing was measured there.
        slope = float(np.max(np.diff(rising) / np.diff(shares)))
        beyond = (allowed - rising[-1]) / slope if slope > TINY else MOST
        return float(min(MOST, shares[-1] + beyond))
    first = int(np.argmax(rising > allowed))
    low, high = rising[first - 1], rising[first]
    part = (allowed - low) / (high - low)
    return float(shares[first - 1] + part * (shares[first] - shares[first - 1]))


def allocate(
    losses: Mapping[str, Sequence[float]],
    sizes: Mapping[str, int],
    share: float,
    levels: Sequence[float] = LEVELS,
) -> dict[str, float]:
    """Return what each layer gives, so that all together give `share` and each alone costs about the same.

    Args:
        losses: Of each layer, quality lost at each level.
        sizes: Weights or units of each layer.
        share: Share of all of them that goes; where that is more than nine tenths of each layer, every layer gives it.
        levels: The levels, rising.
    """
    whole = sum(sizes.values())
    if share >= MOST:
        return dict.fromkeys(sizes, share)

    def given(allowed: float) -> dict[str, float]:
        return {name: share_for(losses[name], allowed, levels) for name in sizes}

    def total(fractions: Mapping[str, float]) -> float:
        return sum(fractions[name] * sizes[name] for name in sizes) / whole

    low, high = 0.0, max(1e-6, *(max(values) for values in losses.values()))
    while total(given(high)) < share and high < 1e9:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if total(given(middle)) >= share else (middle, high)
    fractions = given(high)
    excess = total(fractions) / share
    # Layers that cost nothing at all give together more than is asked for: each a little less, then.
    return {name: fraction / excess for name, fraction in fractions.items()} if excess > 1 else fractions
