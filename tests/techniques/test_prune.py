"""When pruning prunes, what each layer gives, and how a sparsity is searched, over NumPy alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.errors import ModelError
from nbopt.techniques._prune.allocation import allocate, share_for
from nbopt.techniques._prune.schedules import SCHEDULES, default_rounds, share_at
from nbopt.techniques._prune.search import Tried, least_within, most_within
from nbopt.techniques.prune import Prune


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(rounds=st.integers(1, 30), times=st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_schedule_only_rises_and_reaches_its_target(schedule: str, rounds: int, times: list[float]) -> None:
    shares = [share_at(schedule, done, rounds) for done in sorted(times)]
    assert shares == sorted(shares)
    assert all(0 < share <= 1 for share in shares)
    assert share_at(schedule, 1.0, rounds) == 1.0


def test_a_schedule_prunes_as_often_as_it_is_told() -> None:
    for schedule, rounds in (("iterative", 4), ("cubic", 6)):
        shares = {share_at(schedule, done, rounds) for done in np.linspace(0, 1, 500)}
        assert len(shares) == rounds + (schedule == "cubic")
    # Each iterative round has an equal part of the training after it, the last too.
    assert share_at("iterative", 0.0, 4) == 0.25
    assert share_at("iterative", 0.74, 4) < 1.0 == share_at("iterative", 0.75, 4)
    # Cubic takes most at first (Zhu & Gupta 2017), and leaves the last quarter to recover.
    early, late = share_at("cubic", 0.3, 100), share_at("cubic", 0.6, 100)
    assert early > 0.75
    assert late - early < early
    assert share_at("cubic", 0.76, 100) == 1.0
    assert [default_rounds(schedule, 3) for schedule in SCHEDULES] == [1, 3, 10]
    assert default_rounds("iterative", 1) == 2


def test_the_label_names_what_matters() -> None:
    assert Prune(sparsity=0.3).label == "prune 0.3 unstructured"
    assert Prune(sparsity=0.25, structured=True).label == "prune 0.25 structured"
    assert Prune(pattern="1:4").label == "prune 0.75 unstructured pattern 1:4"
    assert (
        Prune(importance="taylor", schedule="cubic").label == "prune 0.5 unstructured importance taylor schedule cubic"
    )


losses_of = st.lists(st.floats(-0.05, 0.5), min_size=3, max_size=3)


@settings(max_examples=100)
@given(losses_of, st.floats(0, 0.6), st.floats(0, 0.6))
def test_a_layer_gives_more_the_more_it_may_cost(losses: list[float], one: float, other: float) -> None:
    less, more = share_for(losses, min(one, other)), share_for(losses, max(one, other))
    assert 0 <= less <= more <= 0.9


def test_a_layer_gives_up_to_where_its_loss_is() -> None:
    assert share_for((0.1, 0.2, 0.4), 0.0) == 0.0
    assert share_for((0.1, 0.2, 0.4), 0.1) == pytest.approx(0.25)
    assert share_for((0.1, 0.2, 0.4), 0.3) == pytest.approx(0.625)
    assert share_for((0.0, 0.0, 0.0), 0.0) == 0.9
    assert share_for((0.1, -0.3, 0.2), 0.05) == pytest.approx(0.125)  # a dip after a loss is noise


@settings(max_examples=60)
@given(
    st.lists(losses_of, min_size=1, max_size=6),
    st.lists(st.integers(1, 500), min_size=6, max_size=6),
    st.floats(0.05, 0.95),
)
def test_layers_together_give_the_share(losses: list[list[float]], numbers: list[int], share: float) -> None:
    names = [str(i) for i in range(len(losses))]
    sizes = dict(zip(names, numbers, strict=False))
    fractions = allocate(dict(zip(names, losses, strict=True)), sizes, share)
    given_share = sum(fractions[name] * sizes[name] for name in names) / sum(sizes.values())
    assert given_share == pytest.approx(share, abs=0.02)
    assert all(0 <= fraction < 1 for fraction in fractions.values())


def test_what_minds_least_gives_most() -> None:
    fractions = allocate({"soft": (0.0, 0.01, 0.02), "hard": (0.2, 0.4, 0.6)}, {"soft": 10, "hard": 10}, 0.45)
    assert fractions["soft"] > 0.8
    assert fractions["hard"] < 0.1


@settings(max_examples=60)
@given(st.floats(0.06, 0.94))
def test_a_search_ends_at_the_limit_within_its_tries(edge: float) -> None:
    def attempt(share: float, *, above: bool) -> Tried:
        return Tried(share, f"{share}", share >= edge if above else share <= edge)

    share, tried = least_within(lambda s: attempt(s, above=True), "it")
    assert edge <= share <= edge + 0.02
    assert len(tried) <= 8
    share, tried = most_within(lambda s: attempt(s, above=False), "it")
    assert edge - 0.02 <= share <= edge
    assert len(tried) <= 8


def test_a_limit_that_nothing_meets_is_told_with_what_came_nearest() -> None:
    with pytest.raises(ModelError, match="900 bytes, too much") as caught:
        least_within(lambda share: Tried(share, "900 bytes", False), "500 bytes")
    assert "500 bytes" in caught.value.expected
    with pytest.raises(ModelError, match="too much"):
        most_within(lambda share: Tried(share, "0.2 lost", False), "0.1")
