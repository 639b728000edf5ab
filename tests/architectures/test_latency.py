"""Time shared out among parts: found again where it is known, and how far off a guess is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.architectures import space_of
from nbopt.architectures.factors import Factors
from nbopt.architectures.latency import fitted, not_negative, parts_of, to_measure, weighed
from tests.architectures.small import IMPORTANCES, PARTS, SHAPES

Array = np.ndarray[Any, Any]
SPACE = space_of(PARTS)
FACTORS = Factors(SPACE, IMPORTANCES)
SETTINGS = st.tuples(*(st.integers(0, size - 1) for size in SPACE.grid.sizes))


@given(SETTINGS)
def test_shares_are_those_of_the_weights_that_a_candidate_has(setting: tuple[int, ...]) -> None:
    masks, skipped = FACTORS.masks(setting), SPACE.blueprint(setting).skipped
    found = [float(part.at(np.asarray([setting]))[0]) for part in parts_of(FACTORS)]
    for name in SHAPES:
        if name == "a2_scale":
            continue  # of the last weights of a block the mask says too whether the block is there
        inside = PARTS.layers[name][0] in skipped
        assert min(abs(share - (0.0 if inside else masks[name].mean())) for share in found) < 1e-5


def test_what_never_changes_is_no_part() -> None:
    only = space_of(PARTS, kinds=("kernel",))
    parts = parts_of(Factors(only, IMPORTANCES))
    assert [part.dimensions for part in parts] == [(0,), (1,)]
    assert parts[0].shares.tolist() == pytest.approx([9 / 25, 1])


def test_times_that_are_sums_of_parts_are_found_again() -> None:
    rng = np.random.default_rng(0)
    parts = parts_of(FACTORS)
    taken = rng.random(len(parts)) * 0.1

    def time_of(settings: Array) -> Array:
        return 0.05 + sum(factor * part.at(settings) for factor, part in zip(taken, parts, strict=True))

    settings = to_measure(SPACE, 60, rng)
    latency = fitted(parts, settings, time_of(settings))
    others = SPACE.grid.draw(rng, 200)
    assert latency.table.at(others) == pytest.approx(time_of(others), rel=0.05)
    assert latency.error < 0.03
    assert f"{len(settings)} candidates" in latency.note


@given(SETTINGS)
def test_where_nothing_is_timed_weights_are_counted(setting: tuple[int, ...]) -> None:
    masks, skipped = FACTORS.masks(setting), SPACE.blueprint(setting).skipped
    left = sum(
        np.prod(shape) if name not in masks else masks[name].sum()
        for name, shape in SHAPES.items()
        if PARTS.layers[name][0] not in skipped and name != "a2_scale"
    )
    scale = 0.0 if "a" in skipped else float(FACTORS.masks((*setting[:5], 1, *setting[6:]))["a2_scale"].sum())
    assert weighed(FACTORS).table.at(np.asarray([setting]))[0] == pytest.approx(max(1, left + scale), abs=1.01)


def test_the_error_that_is_told_is_that_of_what_was_left_out() -> None:
    rng = np.random.default_rng(0)
    settings = to_measure(SPACE, 60, rng)
    noise = np.exp(rng.normal(0, 0.3, len(settings)))  # no table could know this
    assert fitted(parts_of(FACTORS), settings, noise).error > 0.1


def test_what_is_measured_holds_the_ends_and_nothing_twice() -> None:
    settings = to_measure(SPACE, 30, np.random.default_rng(0))
    assert len(settings) == 30
    assert len(np.unique(settings, axis=0)) == 30
    assert settings[0].tolist() == list(SPACE.grid.start or ())
    for at, size in enumerate(SPACE.grid.sizes):
        assert {0, size - 1} <= set(settings[:, at])


@given(st.integers(0, 50))
def test_factors_are_of_0_or_more_and_no_worse_than_their_neighbours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, values = rng.random((30, 5)) + 0.1, rng.random(30) + 0.5
    found = not_negative(columns, values)

    def lost(factors: Array) -> float:
        return float(((columns @ factors / values - 1) ** 2).mean())

    assert (found >= 0).all()
    for at in range(5):
        for step in (-0.02, 0.02):
            other = found.copy()
            other[at] = max(0.0, other[at] + step)
            assert lost(found) <= lost(other) + 1e-4
