"""What readers of every form of artifact need: names, zeros, products of shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

FAKE_QUANT = re.compile(r"fake_?quant", re.IGNORECASE)
PARAMETRIZED = re.compile(r"(^|[./])parametrizations[./]")
TF_MOT = "prune_low_magnitude_"
"""What TF-MOT puts before the name of a layer that it wraps."""
MASK, ORIGINAL = "_mask", "_orig"
"""Endings that torch's pruning gives to the two tensors of which it makes a weight."""

OPENVINO_TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "i8": "int8", "u8": "uint8", "i4": "int4",
                  "u4": "uint4", "i64": "int64", "i32": "int32", "f64": "float64"}  # fmt: skip


def owner_of(weight: str) -> str:
    """Return the layer that a weight of the model belongs to: "model.head.weight_quantized" is of "head".

    A name that an exporter made up ("val_42") gives "".
    """
    found = re.match(r"(?:model\.)?(.+?)\.(?:in_proj_)?weight(?![a-z])", weight)
    return found.group(1) if found else ""


def masks_among(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of pruning's masks with their originals, of parametrizations, and of TF-MOT's wrappers.

    A mask alone is the model's own: many attention layers keep a `causal_mask`.
    """
    known = {name: name.partition(":")[0] for name in names}
    plain = set(known.values())
    masked = {name.removesuffix(MASK) for name in plain if name.endswith(MASK)}
    pairs = {stem for stem in masked if stem + ORIGINAL in plain}
    kept = {stem + ending for stem in pairs for ending in (MASK, ORIGINAL)}
    return tuple(name for name, bare in known.items() if bare in kept or TF_MOT in bare or PARAMETRIZED.search(bare))


def zeros_in(values: np.ndarray[Any, Any], zero_point: np.ndarray[Any, Any] | None = None) -> int:
    """Return how many weights are zero: equal to their zero point where they are quantized."""
    if zero_point is None or zero_point.size == 0 or not np.any(zero_point):
        return int(values.size - np.count_nonzero(values))
    points = zero_point.reshape(-1)
    if (points == points[0]).all():
        return int(np.count_nonzero(values == points[0]))
    # One point a channel: along the axis of that length, the last where several have it.
    axis = max(i for i, size in enumerate(values.shape) if size == points.size)
    shape = [points.size if i == axis else 1 for i in range(values.ndim)]
    return int(np.count_nonzero(values == points.reshape(shape)))


def einsum_macs(equation: str, shapes: Sequence[Sequence[int]]) -> int | None:
    """Return the multiply-accumulates of an einsum of two operands, None where the equation is not that plain."""
    operands = equation.replace(" ", "").split("->")[0].split(",")
    if len(operands) != 2 or len(shapes) != 2:
        return None
    sizes: dict[str, int] = {}
    for operand, shape in zip(operands, shapes, strict=True):
        letters = operand.replace("...", "")
        # The axes of an ellipsis stand before, between or after the named ones, and are aligned from the right.
        start = operand.find("...")
        extra = len(shape) - len(letters)
        if extra < 0 or (extra and start < 0):
            return None
        named = list(shape)
        if start >= 0:
            for offset, size in enumerate(reversed(shape[start : start + extra])):
                sizes[f"...{offset}"] = max(size, sizes.get(f"...{offset}", 1))
            named = [*shape[:start], *shape[start + extra :]]
        for letter, size in zip(letters, named, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


def largest(shapes: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return the shape with the most elements, () where there is none."""
    return tuple(max(shapes, key=math.prod, default=()))
