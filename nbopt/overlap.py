"""Rows that two splits have in common, by content: what a model may know before it is asked."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Batch, Inputs, numeric_inputs, rows_of, take_rows
from nbopt.data import Split, kept_randomness
from nbopt.frozen import Samples, hash_rows, row_hashes

READ_ROWS = 200_000
"""Rows of a split that are read at most to find what it shares with another."""

OPTIMISTIC = 0.01
"""Share of shared rows above which figures are called optimistic: up to it, they can hide a loss of one point."""


@dataclass(frozen=True)
class Hashed:
    """Hold the content hashes of a split's rows.

    Args:
        digests: One for each distinct row that was read; inputs only, labels do not count.
        read: Rows that were read.
        whole: The split ended there.
        samples: A row of each shape that came, see `Samples`.
        labelled: A number for all rows that were read with their labels and weights, in any order.
    """

    digests: frozenset[bytes]
    read: int
    whole: bool = True
    samples: tuple[Inputs, ...] = ()
    labelled: int = 0


@dataclass(frozen=True)
class Overlap:
    """Hold how many distinct rows of one split stand in another too.

    Args:
        first: Name of the split that is looked through: "train", or "valid" beside test.
        second: Name of the split that should hold new rows.
        rows: Distinct rows that stand in both.
        of: Distinct rows of the second.
        read: Rows of the first that were read.
        whole: The first was read to its end.
    """

    first: str
    second: str
    rows: int
    of: int
    read: int
    whole: bool = True

    @property
    def pair(self) -> str:
        """Return its name: "train-test"."""
        return f"{self.first}-{self.second}"

    @property
    def share(self) -> float:
        """Return the share of the second's distinct rows that stand in the first, 0 to 1."""
        return self.rows / self.of if self.of else 0.0

    @property
    def optimistic(self) -> bool:
        """Tell whether so many rows are shared that figures on the second can't be taken at face value."""
        return self.share > OPTIMISTIC

    def text(self, report: str) -> str:
        """Return what was found and what it means, as a sentence without a full stop.

        Args:
            report: Name of the split that figures are reported on.
        """
        place = self.first if self.whole else f"the first {self.read:,} rows of {self.first}"
        if not self.rows:
            rest = "" if self.whole else " (the rest was not read)"
            return f"no row of {self.second} stands in {place}{rest}"
        least = "" if self.whole else "at least "
        verb = "stands" if self.rows == 1 else "stand"
        share = f"{100 * self.share:.2g}%" if self.share < 0.1 else f"{self.share:.0%}"
        count = f"{least}{self.rows:,} of {self.of:,} distinct rows of {self.second} ({share}) {verb} in {place} too"
        return f"{count}: {self._meaning(report)}"

    def _meaning(self, report: str) -> str:
        if self.second != report:
            return f"what {self.second} selects was trained on in part, and may be over-fitted"
        if self.first == "train":
            known = f"quality on {self.second} is optimistic for whatever was trained on train, the baseline included"
        else:
            known = f"quality on {self.second} is optimistic for whatever was selected on {self.first}"
        return known if self.optimistic else f"too few to move quality on {self.second} by more than a point"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the pair's names."""
        return {"rows": self.rows, "of": self.of, "read": self.read, "whole": self.whole}


def hash_split(split: Split, float_dtype: str, limit: int = READ_ROWS) -> Hashed:
    """Read a split once, `limit` rows of it or a batch more, and hash its rows.

    Args:
        split: The split. What is random in it (augmentation) comes out the same each time; the user's random state is
            given back.
        float_dtype: Dtype that floating inputs are cast to, so that equal rows of two splits have equal bytes.
        limit: Rows after which no further batch is read.
    """
    digests: set[bytes] = set()
    samples = Samples()
    read, whole, labelled = 0, True, 0
    with kept_randomness(split):
        _start_anew(split)
        for batch in split:
            if read >= limit:
                whole = False
                break
            inputs = numeric_inputs(batch.inputs, float_dtype)
            samples.see(inputs)
            hashes = row_hashes(inputs)
            digests.update(hashes)
            labelled += _labelled(hashes, batch)
            read += batch.rows
    return Hashed(frozenset(digests), read, whole, samples.rows(), labelled % 2**64)


def _start_anew(split: Split) -> None:
    """Start what a pass over a split may draw from, in this process: another kernel reads the same rows then."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the user's own global state
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(0)
    for generator in split.generators:
        if hasattr(generator, "manual_seed"):
            generator.manual_seed(0)


def _labelled(hashes: list[bytes], batch: Batch) -> int:
    """Return a number for rows and what stands beside each, the same in any order of the rows."""
    beside = [to_numpy(part) for part in (batch.targets, batch.weight) if part is not None]
    beside = [part for part in beside if part.ndim and len(part) == len(hashes)]
    rows = np.frombuffer(b"".join(hashes), dtype=np.uint64)
    return sum(int.from_bytes(each) for each in row_hashes([rows, *beside]))


def overlap_of(first: str, looked_through: Hashed, second: str, rows: frozenset[bytes]) -> Overlap:
    """Return what two splits have in common."""
    shared = len(looked_through.digests & rows)
    return Overlap(first, second, shared, len(rows), looked_through.read, looked_through.whole)


def overlaps_in(environment: Mapping[str, Any]) -> list[Overlap]:
    """Return the overlaps that a run's conditions record, those left out that are damaged."""
    recorded = environment.get("shared")
    found = []
    for pair, body in recorded.items() if isinstance(recorded, Mapping) else ():
        first, _, second = str(pair).partition("-")
        if not (first and second and isinstance(body, Mapping)):
            continue
        counts = [int(body[key]) for key in ("rows", "of", "read") if type(body.get(key)) is int and body[key] >= 0]
        if len(counts) == 3:
            rows, of, read = counts
            found.append(Overlap(first, second, rows, of, read, whole=body.get("whole") is not False))
    return found


def rows_apart(
    split: Split,
    wanted: int,
    float_dtype: str,
    reporting: frozenset[bytes],
    limit: int = READ_ROWS,
    *,
    labelled: bool = False,
) -> tuple[list[Batch], int]:
    """Return rows of a split that do not stand among the reporting rows, as batches of one, views of those read.

    Args:
        split: The split.
        wanted: Rows after which no further batch is read.
        float_dtype: As in `hash_split`.
        reporting: Content hashes of the rows that figures are reported on.
        limit: Rows that are looked at at most.
        labelled: With their labels and weights.

    Returns:
        The rows, and how many were left out because they report.
    """
    apart: list[Batch] = []
    left_out = 0
    with kept_randomness(split):
        for batch in split:
            inputs = numeric_inputs(batch.inputs, float_dtype)
            told = (batch.targets, batch.weight) if labelled else ()
            beside = [None if part is None else to_numpy(part) for part in told]
            for index in range(rows_of(inputs)):
                one = slice(index, index + 1)
                row = take_rows(inputs, one)
                if hash_rows(row) & reporting:
                    left_out += 1
                else:
                    apart.append(Batch(row, *(None if part is None else part[one] for part in beside)))
            if len(apart) >= wanted or len(apart) + left_out >= limit:
                break
    return apart, left_out
