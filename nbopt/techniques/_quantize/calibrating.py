"""Rows that ranges are taken from, checked before any quantizer sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.batches import Inputs
from nbopt.draft import Context
from nbopt.errors import DataError
from nbopt.frameworks import Signature

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize


def calibration_rows(
    signature: Signature, context: Context, options: Quantize
) -> tuple[list[dict[str, np.ndarray[Any, Any]]], tuple[str, ...]]:
    """Return rows by input name, a batch of one each, and what a reader must know about them.

    Raises:
        DataError: They are of another shape than the rows that the model is exported for.
    """
    rows, note = context.workload.calibration(options.calibration, context.rng())
    named = [by_name(row, signature) for row in rows]
    for row in named:
        check_shapes(row, signature)
    notes = [note] if note else []
    if len(rows) == 1:
        notes.append("calibrated on 1 row: what other rows hold beyond its range is clipped")
    return named, tuple(notes)


def calibration_batches(context: Context, options: Quantize) -> tuple[list[Inputs], tuple[str, ...]]:
    """Return the same rows in batches as the model is called with them."""
    signature = context.workload.signature
    rows, notes = calibration_rows(signature, context, options)
    return [batch if signature.keyed else tuple(batch.values()) for batch in stacked(rows)], notes


def by_name(row: Inputs, signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """Return a batch's inputs by the names that the export gives them.

    Raises:
        DataError: There are more or fewer than the model has.
    """
    if not isinstance(row, dict) and len(row) != len(signature.names):
        raise DataError(f"calibration rows with inputs {', '.join(signature.names)}", f"{len(row)} inputs")
    named = row if isinstance(row, dict) else dict(zip(signature.names, row, strict=True))
    missing = [name for name in signature.names if name not in named]
    if missing:
        raise DataError(f"calibration rows with inputs {', '.join(signature.names)}", ", ".join(named))
    return {name: np.ascontiguousarray(named[name]) for name in signature.names}


def check_shapes(row: Mapping[str, np.ndarray[Any, Any]], signature: Signature) -> None:
    """Compare a row with the signature.

    Raises:
        DataError: Its shape is another one.
    """
    for leaf in signature.leaves:
        came, wanted = row[leaf.name].shape, leaf.shape
        if len(came) != len(wanted) or any(w is not None and w != c for w, c in zip(wanted[1:], came[1:], strict=True)):
            text = ", ".join("rows" if i == 0 else "any" if w is None else str(w) for i, w in enumerate(wanted))
            raise DataError(
                f"calibration rows of the shape that the model is measured on: {leaf.name} ({text})",
                f"train rows of shape ({', '.join(('rows', *map(str, came[1:])))})",
                "give train in the same shape as valid and test",
            )


TOGETHER = 32
"""Rows that run at a time where a whole batch is wanted."""


def stacked(rows: list[dict[str, np.ndarray[Any, Any]]]) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Return rows of equal shape as batches."""
    batches: list[list[dict[str, np.ndarray[Any, Any]]]] = []
    for row in rows:
        last = batches[-1] if batches else []
        if last and len(last) < TOGETHER and all(last[0][name].shape == value.shape for name, value in row.items()):
            last.append(row)
        else:
            batches.append([row])
    return [{name: np.concatenate([row[name] for row in batch]) for name in batch[0]} for batch in batches]
