"""What may change becomes few choices, and places become candidates."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.architectures import Blueprint, Kernel, Parts, space_of
from nbopt.architectures.space import distinct, grouped, kept_units, unit_step
from nbopt.errors import ModelError, OptionError
from nbopt.narrowing.widths import Width
from tests.architectures.small import PARTS

WIDTHS = st.lists(
    st.builds(
        lambda size, kind: (size, kind),
        st.sampled_from([1, 3, 8, 16, 32, 64, 512]),
        st.sampled_from(["channels", "heads"]),
    ),
    min_size=1,
    max_size=30,
).map(lambda pairs: [Width(f"w{i}", (f"w{i}",), size, (), kind=kind) for i, (size, kind) in enumerate(pairs)])


def test_the_space_of_a_residual_network() -> None:
    space = space_of(PARTS)
    assert [choice.text for choice in space.choices] == [
        "width stem: 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1",
        "width a1: 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1",
        "width b1: 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1",
        "kernel stem: 3, 5",
        "kernel a1: 1, 3",
        "block a: in or out",
        "block b: in or out",
    ]
    assert space.grid.size == 7**3 * 2**4
    assert space.grid.start is not None
    assert space.blueprint(space.grid.start) == Blueprint(
        {"stem": 8, "a1": 16, "b1": 16}, {"stem": 5, "a1": 3}, frozenset()
    )
    assert space.blueprint([0, 2, 6, 0, 1, 0, 1]) == Blueprint(
        {"stem": 2, "a1": 8, "b1": 16}, {"stem": 3, "a1": 3}, frozenset("a")
    )


def test_uniform_scaling_changes_all_widths_alike_and_nothing_else() -> None:
    space = space_of(PARTS)
    assert space.blueprint(space.uniform(0.5)) == Blueprint(
        {"stem": 4, "a1": 8, "b1": 8}, {"stem": 5, "a1": 3}, frozenset()
    )


def test_what_lies_in_a_skipped_block_makes_no_other_candidate() -> None:
    space = space_of(PARTS)
    some = np.asarray([[3, 2, 2, 0, 0, 0, 1], [3, 2, 2, 0, 0, 1, 0]])
    assert space.plain(some).tolist() == [[3, 6, 2, 0, 1, 0, 1], [3, 2, 6, 0, 0, 1, 0]]


def test_only_the_kinds_that_are_asked_for() -> None:
    assert {choice.kind for choice in space_of(PARTS, kinds=("block",)).choices} == {"block"}
    with pytest.raises(OptionError, match="width, kernel, block"):
        space_of(PARTS, kinds=("depth",))


@pytest.mark.parametrize(
    "parts",
    [Parts(), Parts([Width("one", ("one",), 1, ())]), Parts(kernels=[Kernel("k", "k", (2,), 3, least=3)])],
)
def test_a_space_of_one_point_is_refused_with_its_reason(parts: Parts) -> None:
    with pytest.raises(ModelError, match="a space of one point"):
        space_of(parts)


@pytest.mark.parametrize("shares", [(), (0.0, 1.0), (0.5, 1.5)])
def test_shares_that_are_none_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="above 0 to 1"):
        space_of(PARTS, shares=shares)


def test_a_setting_outside_is_refused() -> None:
    with pytest.raises(OptionError, match="within sizes"):
        space_of(PARTS).blueprint([7, 0, 0, 0, 0, 0, 0])


@given(WIDTHS, st.integers(1, 8))
def test_groups_are_neighbours_of_one_kind_and_few(widths: list[Width], most: int) -> None:
    groups = grouped(widths, most)
    assert [width for group in groups for width in group] == widths
    assert all(len({width.kind for width in group}) == 1 for group in groups)
    turns = sum(one.kind != other.kind for one, other in itertools.pairwise(widths))
    assert len(groups) <= max(most, turns + 1)


def test_neighbours_of_one_size_go_together_first() -> None:
    widths = [Width(f"w{i}", (), size, ()) for i, size in enumerate([16, 16, 32, 32, 64, 64])]
    assert [[w.size for w in group] for group in grouped(widths, 3)] == [[16, 16], [32, 32], [64, 64]]


@given(WIDTHS, st.floats(0.01, 1))
def test_what_a_share_keeps_is_of_whole_steps(widths: list[Width], share: float) -> None:
    for width in widths:
        kept = kept_units(width, share)
        assert 1 <= kept <= width.size
        assert kept % unit_step(width) == 0 or kept == width.size
        assert kept_units(width, 1.0) == width.size


@given(WIDTHS)
def test_options_differ_in_what_they_keep_and_end_with_all(widths: list[Width]) -> None:
    options = distinct(widths, (0.25, 0.5, 0.75, 1.0))
    kept = [[kept_units(width, share) for width in widths] for share in options]
    assert options[-1] == 1.0
    assert kept == sorted(kept)
    assert len({tuple(row) for row in kept}) == len(options)
