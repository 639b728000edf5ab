"""Which rows are mixed, by how much and where: known without a framework."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.errors import DataError
from nbopt.frameworks._mixing import Mix, Mixing, draw_box, image_axes, not_mixable
from nbopt.training import TrainingPlan

IMAGES = [("float32", (8, 1, 28, 28))]


@given(st.integers(0, 10**6), st.floats(0, 1), st.integers(2, 40), st.integers(2, 40))
def test_a_box_takes_what_its_share_says(seed: int, share: float, height: int, width: int) -> None:
    box, kept = draw_box(np.random.default_rng(seed), share, (4, 3, height, width + 4))
    region = Mix(np.arange(4), kept, box).region((4, 3, height, width + 4))
    assert region is not None
    marked = np.zeros((4, 3, height, width + 4))
    marked[region] = 1
    assert marked[0, 0].mean() == pytest.approx(1 - kept)
    assert marked[0, 0].mean() <= 1 - share + 1.0 / height + 1.0 / width  # cut off at borders, never larger
    assert (marked == marked[:1, :1]).all()


@given(st.integers(0, 1000), st.floats(0.05, 5))
def test_mixup_pairs_each_row_with_one(seed: int, alpha: float) -> None:
    mixing = Mixing.of(TrainingPlan(mixup=alpha, seed=seed))
    assert mixing is not None
    mix = mixing.draw(8, IMAGES)
    assert sorted(mix.order) == list(range(8))
    assert 0 <= mix.share <= 1
    assert mix.box is None


def test_both_take_turns_by_chance() -> None:
    mixing = Mixing.of(TrainingPlan(mixup=1.0, cutmix=1.0))
    assert mixing is not None
    cut = [mixing.draw(8, IMAGES).box is not None for _ in range(200)]
    assert 60 < sum(cut) < 140


def test_a_plan_that_mixes_nothing_draws_nothing() -> None:
    assert Mixing.of(TrainingPlan()) is None


def test_the_axes_of_images() -> None:
    assert image_axes((8, 3, 28, 28)) == (2, 3)
    assert image_axes((8, 28, 28, 3)) == (1, 2)
    assert image_axes((8, 28, 28)) == (1, 2)
    assert image_axes((8, 12, 25)) is None
    assert image_axes((8, 64)) is None


def test_tokens_and_categories_are_refused_with_the_reason() -> None:
    error = not_mixable([("float32", (8, 5)), ("torch.int64", (8, 12))], 0.2, 0.0)
    assert isinstance(error, DataError)
    assert "token" in error.came
    assert "int64, shape (rows, 12)" in error.came
    assert not_mixable([("float32", (8, 5))], 0.2, 0.0) is None


def test_cutmix_wants_images() -> None:
    error = not_mixable([("float32", (8, 12, 25))], 0.0, 1.0)
    assert error is not None
    assert "mixup" in error.do
    assert not_mixable(IMAGES, 0.0, 1.0) is None
    with pytest.raises(DataError):
        Mixing(TrainingPlan(cutmix=1.0)).draw(8, [("float32", (8, 5))])
