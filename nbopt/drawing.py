"""Rows of a frozen split drawn by chance, in files of their own."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from nbopt.batches import Inputs, leaves, rows_of, take_rows
from nbopt.data import EVALUATION_BATCH
from nbopt.frozen import Frozen, write_shard


def drawn(frozen: Frozen, most: int, rng: np.random.Generator) -> Frozen:
    """Return rows of a frozen split drawn by chance, in files of their own; the split itself where it has no more.

    Of labels that are classes as large a share of each, and at least one row: in a split that is sorted, the first rows
    are of one class.

    Args:
        frozen: The split.
        most: Rows at most; one for each class that the draw left out may come on top.
        rng: Draws them.
    """
    if frozen.rows <= most:
        return frozen
    order = rng.permutation(frozen.rows)
    places = np.linspace(0, frozen.rows - 1, most).astype(np.int64)
    if frozen.targets is not None and frozen.targets.ndim == 1:
        order = order[np.argsort(frozen.targets[order], kind="stable")]
        classes, first = np.unique(frozen.targets[order], return_index=True)
        if len(first) <= most // 2:
            left_out = ~np.isin(classes, frozen.targets[order][places])
            places = np.union1d(places, first[left_out])
    chosen = np.sort(order[places])
    folder = Path(tempfile.mkdtemp(prefix="nbopt-split-"))
    few = replace(
        frozen,
        folder=folder,
        digest=hashlib.sha256(frozen.digest.encode() + chosen.tobytes()).hexdigest(),
        rows=len(chosen),
        targets=None if frozen.targets is None else frozen.targets[chosen],
        weight=None if frozen.weight is None else frozen.weight[chosen],
    )
    weakref.finalize(few, rmtree, folder, ignore_errors=True)
    for index, inputs in enumerate(_joined(_taken(frozen.batches(), chosen))):
        write_shard(folder / f"{index:06d}.npz", inputs)
    return few


def _taken(batches: Iterable[Inputs], chosen: np.ndarray[Any, Any]) -> Iterator[Inputs]:
    """Yield of each batch the rows that are chosen, by their number in all of them."""
    start = 0
    for inputs in batches:
        rows = rows_of(inputs)
        here = chosen[(chosen >= start) & (chosen < start + rows)] - start
        start += rows
        if len(here):
            yield take_rows(inputs, here)


def _joined(parts: Iterable[Inputs]) -> Iterator[Inputs]:
    """Yield parts of one shape together, in batches of usual size: a model is traced anew for each other one."""

    def whole(pending: list[Any]) -> Inputs:
        if isinstance(pending[0], dict):
            return {name: np.concatenate([part[name] for part in pending]) for name in pending[0]}
        return tuple(map(np.concatenate, zip(*pending, strict=True)))

    for _, group in itertools.groupby(parts, lambda part: [array.shape[1:] for array in leaves(part)]):
        pending: list[Inputs] = []
        for part in group:
            pending.append(part)
            if sum(map(rows_of, pending)) >= EVALUATION_BATCH:
                yield whole(pending)
                pending = []
        if pending:
            yield whole(pending)
