"""Which single weights stay: the most important over all layers, in each layer, or in each N:M block. NumPy only."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from nbopt.errors import ModelError, OptionError

Array = np.ndarray[Any, Any]

AT_ONCE = 1 << 18
"""Blocks of a pattern that are ranked at a time: the order of a weight's elements takes twice its own memory."""


def magnitude_masks(weights: Mapping[str, Array], sparsity: float) -> dict[str, Array]:
    """Return which weights stay: the largest by absolute value, over all layers together; see `smallest_go`."""
    return smallest_go({name: np.abs(value) for name, value in weights.items()}, sparsity)


def smallest_go(scores: Mapping[str, Array], sparsity: float | Mapping[str, float]) -> dict[str, Array]:
    """Return which weights stay: those of the highest score.

    Args:
        scores: Each layer's importance by name, one for each weight, 0 or more, any shapes.
        sparsity: Share that goes, 0 to 1, both excluded: one number over all layers together, or one for each
            layer by name. Exactly round(sparsity * total) go, but each layer keeps its best weight: a layer of
            zeros alone would cut the network in two. Of equal scores those that come first go.

    Raises:
        ModelError: There are no weights.
    """
    if not scores:
        raise ModelError(
            "layers with weights to prune (linear, convolution, recurrent)",
            "none in this model",
            "choose another technique",
        )
    if isinstance(sparsity, Mapping):
        parts = (smallest_go({name: value}, sparsity[name]) for name, value in scores.items())
        return {name: mask for part in parts for name, mask in part.items()}
    # One copy of all scores at a time, in their own dtype: of a large model three would not fit.
    flat = np.concatenate([np.ravel(value) for value in scores.values()])
    best = {name: int(np.argmax(value)) for name, value in scores.items()}
    starts = itertools.accumulate((value.size for value in scores.values()), initial=0)
    for start, place in zip(starts, best.values(), strict=False):
        flat[start + place] = np.inf
    masks = {name: np.ones(value.shape, dtype=bool) for name, value in scores.items()}
    going = min(round(sparsity * flat.size), flat.size - len(scores))
    if going <= 0:
        return masks
    flat.partition(going - 1)
    threshold = flat[going - 1]
    # A stable choice among ties, so that the same model is pruned alike everywhere.
    ties = going - int((flat[:going] < threshold).sum())
    del flat
    for name, value in scores.items():
        line, keep = np.ravel(value), masks[name].reshape(-1)
        keep[line < threshold] = False
        equal = np.flatnonzero(line == threshold)
        equal = equal[equal != best[name]][:ties]
        keep[equal] = False
        keep[best[name]] = True
        ties -= len(equal)
    return masks


def read_pattern(text: str) -> tuple[int, int]:
    """Return N and M of a pattern "N:M": N of every M neighbours stay.

    Raises:
        OptionError: It is not of that form, or not 0 < N < M <= 32.
    """
    parts = text.split(":")
    if len(parts) == 2 and all(part.strip().isdecimal() for part in parts):
        n, m = (int(part) for part in parts)
        if 0 < n < m <= 32:
            return n, m
    raise OptionError("prune --pattern as N:M with 0 < N < M <= 32", repr(text), "--pattern 2:4")


def pattern_masks(scores: Mapping[str, Array], n: int, m: int, axes: Mapping[str, int]) -> dict[str, Array]:
    """Return which weights stay: of every `m` neighbours along the inputs of a layer the `n` of highest score.

    Args:
        scores: Each layer's importance by name.
        n: How many stay.
        m: Of how many.
        axes: The axis along which a layer's inputs lie. What a multiple of `m` leaves over at its end stays.
    """
    masks = {}
    for name, value in scores.items():
        moved = np.moveaxis(np.asarray(value), axes[name], -1)
        whole = moved.shape[-1] // m * m
        blocks = moved[..., :whole].reshape(-1, m)
        keep = np.zeros(blocks.shape, dtype=bool)
        for start in range(0, len(blocks), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            order = np.argsort(-blocks[some], axis=-1, kind="stable")
            np.put_along_axis(keep[some], order[:, :n], True, axis=-1)
        mask = np.ones(moved.shape, dtype=bool)
        mask[..., :whole] = keep.reshape(*moved.shape[:-1], whole)
        masks[name] = np.ascontiguousarray(np.moveaxis(mask, -1, axes[name]))
    return masks
