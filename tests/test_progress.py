"""Progress in words: epochs and steps as a person counts them, and no 0% for minutes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.progress import REPORT_SECONDS, Epoch, Lap, Progress


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


@pytest.mark.parametrize("steps", [200, None])
def test_steps_are_told_as_often_as_is_of_use_and_the_last_of_an_epoch_is(
    steps: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("nbopt.progress.time.monotonic", lambda: 100.0 + clock)
    told: list[Progress] = []
    epoch = Epoch(told.append, 3, 1, steps)
    for step in range(1, 201):
        clock += REPORT_SECONDS / 8
        epoch.tell(step, 1 / step)
    counted = [each.lap.step for each in told if each.lap is not None]
    assert counted[:3] == [1, 9, 17]
    assert len(told) == 25 + (steps is not None)
    assert counted[-1] == (200 if steps else 193)
    assert told[-1].done == (2.0 if steps else 1.0)
    assert told[-1].total == 3
    assert told[0].figure == ("loss", 1.0)
