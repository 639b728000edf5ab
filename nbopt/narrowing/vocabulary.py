"""Embedding tables without the rows that nobody looks up: which stay is decided here, over NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.draft import Context
from nbopt.errors import DataError
from nbopt.narrowing.lowering import Lowering

Array = np.ndarray[Any, Any]
OWN = np.iinfo(np.int64).max
"""Count of a row that stays its own, however often it is looked up: that of padding."""
WORTH = 0.9
"""Share of a table's rows above which what would go is not worth the look-up that finds the rest."""


def rows_kept(counts: Array, least: int) -> Array | None:
    """Return the rows of a table that stay, in order; None where it is not worth it.

    Args:
        counts: How often each row is looked up.
        least: How often a row that stays must be, 1 or more.
    """
    kept = np.flatnonzero(counts >= least)
    return kept if _reached(counts, least) and len(kept) + 1 <= WORTH * len(counts) else None


def _reached(counts: Array, least: int) -> bool:
    """Tell whether any row is looked up so often; that of padding, which stays in any case, is none."""
    return bool(((counts >= least) & (counts != OWN)).any())


def _why_whole(counts: Array, least: int) -> str:
    """Return in words why `rows_kept` leaves a table whole."""
    times = "once" if least == 1 else f"{least} times"
    if not _reached(counts, least):
        return f"train looks no row up as often as {times}"
    return f"{WORTH:.0%} or more of its rows are looked up at least {times}"


def places(rows: int, kept: Array) -> Array:
    """Return, for each row of a table, its row in the smaller one: those that go share the last."""
    found = np.full(rows, len(kept), np.int32)
    found[kept] = np.arange(len(kept), dtype=np.int32)
    return found


def smaller_table(table: Array, kept: Array) -> Array:
    """Return the rows that stay, and after them the mean of those that go, if any do."""
    rest = np.delete(table, kept, axis=0)
    if not len(rest):
        return table[kept]
    return np.concatenate([table[kept], rest.mean(0, keepdims=True, dtype=np.float64).astype(table.dtype)])


def with_shared_rows(model: Any, lowering: Lowering, context: Context, least: int) -> tuple[Any, list[str]]:
    """Return a copy of a model whose embedding tables have one row for all that train hardly looks up, and notes.

    Word2vec leaves out words below a `min_count` (Mikolov et al. 2013, arXiv:1310.4546); a multilingual BERT loses
    nothing by losing the rows of other languages (Abdaoui et al. 2020, arXiv:2010.05609).

    Args:
        model: The framework's model; it stays as it is.
        lowering: To the framework.
        context: Whose train rows are counted, in one pass.
        least: How often a row must be looked up to stay, 1 or more.

    Raises:
        DataError: There is no train data.
    """
    train = context.workload.train
    if train is None:
        raise DataError("train data, whose look-ups are counted", "none", "leave --min-count out")
    counts = lowering.lookups(model, iter(train))
    kept = {name: rows for name, each in counts.items() if (rows := rows_kept(each, least)) is not None}
    whole = [name for name in counts if name not in kept]
    notes = [f"{name}: {_why_whole(counts[name], least)}, so all stay" for name in whole]
    if not kept:
        return model, notes or ["there is no embedding table whose rows could go"]
    smaller, left = lowering.with_shared_rows(model, kept, train.first())
    notes += [f"{name} keeps all of its rows: {reason}" for name, reason in left.items()]
    notes += [
        f"{name}: {len(rows):,} of {len(counts[name]):,} rows stay, those that train looks up fewer than {least} "
        f"{'time' if least == 1 else 'times'} are one"
        for name, rows in kept.items()
        if name not in left
    ]
    return smaller, notes
