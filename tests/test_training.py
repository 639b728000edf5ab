"""Progress in words: epochs and steps as a person counts them, and no 0% for minutes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.training import Lap, Progress


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress("exporting"), ""),
        (Progress("sensitivity", 3, 12), "3/12"),
        (Progress("waiting", 244.4567, 400), "244.5/400"),
        (Progress("timing", 0.5, 1.0), "50%"),
        (Progress("timing", 0.004, 1.0), "under 1%"),
        (Progress("timing", 0.0, 1.0), "0%"),
        (Progress("training", 0.0001, 1, lap=Lap(1, 12, 120_000)), "step 12 of 120,000"),
        (Progress("training", 1.1, 10_000, lap=Lap(2, 12, 120)), "epoch 2 of 10,000, step 12 of 120"),
        (Progress("training", 1.0, 3, lap=Lap(2, 12)), "epoch 2 of 3, step 12"),
    ],
)
def test_how_much_is_done(progress: Progress, words: str) -> None:
    assert progress.count == words


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 10**7))
def test_what_has_begun_never_reads_as_nothing(share: float, total: int) -> None:
    assert Progress("x", share * total, total).count not in ("0%", f"0/{total:g}")
