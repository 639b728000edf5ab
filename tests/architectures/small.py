"""A small residual network as arrays: convolutions with a stream of eight channels, two blocks and a head."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.architectures import Block, Kernel, Parts
from nbopt.narrowing.widths import Cut, Width

Array = np.ndarray[Any, Any]
SHAPES: dict[str, tuple[int, ...]] = {
    "stem": (8, 1, 5, 5),
    "a1": (16, 8, 3, 3),
    "a2": (8, 16, 3, 3),
    "a2_scale": (8,),
    "b1": (16, 8, 3, 3),
    "b2": (8, 16, 3, 3),
    "b2_scale": (8,),
    "head": (3, 8),
}


def all_of(size: int) -> Array:
    return np.arange(size)


STREAM = Width(
    "stem",
    ("stem", "a2", "b2"),
    8,
    (
        Cut("stem", 0, all_of(8)),
        *(Cut(f"{each}1", 1, all_of(8)) for each in "ab"),
        *(Cut(f"{each}2", 0, all_of(8)) for each in "ab"),
        *(Cut(f"{each}2_scale", 0, all_of(8)) for each in "ab"),
        Cut("a2_mean", 0, all_of(8)),  # a buffer, of no shape among what trains
        Cut("head", 1, all_of(8)),
    ),
)
INNER = tuple(
    Width(f"{each}1", (f"{each}1",), 16, (Cut(f"{each}1", 0, all_of(16)), Cut(f"{each}2", 1, all_of(16))))
    for each in "ab"
)
PARTS = Parts(
    (STREAM, *INNER),
    (Kernel("stem", "stem", (2, 3), 5, least=3), Kernel("a1", "a1", (2, 3), 3)),
    (Block("a", ("a2_scale",), ("a1", "a2")), Block("b", (), ("b1", "b2"))),
    SHAPES,
    {name: name.partition("_")[0] for name in SHAPES},
)
IMPORTANCES = {"stem": np.arange(8.0), "a1": np.arange(16.0)[::-1], "b1": np.arange(16.0)}
