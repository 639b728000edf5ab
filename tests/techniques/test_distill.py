"""What distillation decides without a framework: its options, simple students, blocks, and who is best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nbopt.errors import ModelError, OptionError
from nbopt.frozen import Leaf
from nbopt.measurement.intervals import Interval
from nbopt.recipe import Recipe
from nbopt.techniques._distill.blocks import kept_blocks
from nbopt.techniques._distill.choosing import Tried, best_of
from nbopt.techniques._distill.simple import Design, columns_of, designs
from nbopt.techniques.distill import Distill


def test_the_same_student_on_labels_alone_stands_beside() -> None:
    recipe = Recipe.parse("prune --structured | distill --temperature 2 --hints a --epochs 5 | quantize")
    (other,) = recipe.beside()
    assert other.text() == "prune --structured | distill --alpha 0.0 --epochs 5 | quantize"
    assert Recipe.parse(other.text()) == other
    assert not other.beside()
    assert "on labels alone" in other.label


def test_two_students_of_one_class_are_two_recipes() -> None:
    small, smaller = (Recipe.of(Distill(student=nn.Linear(64, width))) for width in (12, 10))
    assert small.text() == "distill --student {Linear of 780 weights}"
    assert small.label == "distill Linear of 780 weights"
    assert smaller.text() != small.text()


def test_models_as_values_are_written_by_their_type_and_size() -> None:
    class Big:
        pass

    class Small:
        pass

    step = Distill(teacher=Big(), student=Small(), extra=np.zeros((2, 2)))
    assert step.label == "distill Small teacher {Big} extra {ndarray of 2 x 2}"
    assert Recipe.of(step).text() == "distill --teacher {Big} --student {Small} --extra {ndarray of 2 x 2}"
    models = {"big": Big(), "small": Small(), "x": np.zeros(3)}
    (read,) = Recipe.parse("distill --teacher big --student small --extra x", models).techniques
    assert (read.teacher, read.student) == (models["big"], models["small"])  # type: ignore[attr-defined]
    (several,) = Recipe.parse("distill --teacher {[big, small]}", models).techniques
    assert list(several.teacher) == [models["big"], models["small"]]  # type: ignore[attr-defined]
    assert Recipe.parse("distill --student simple").techniques == (Distill(student="simple"),)
    with pytest.raises(OptionError, match="Big"):
        Recipe.parse(Recipe.of(step).text())  # a run's record names the type; the model itself must be at hand


def test_words_that_are_neither_a_student_nor_a_model_are_refused() -> None:
    with pytest.raises(OptionError, match="auto, narrow, simple"):
        Distill(student="tiny")
    with pytest.raises(OptionError, match="as a model"):
        Distill(teacher="big")


@given(st.integers(1, 30), st.floats(0.05, 1.0))
def test_blocks_that_stay_are_spread_evenly(count: int, share: float) -> None:
    kept = kept_blocks(range(count), share)
    assert kept == sorted(set(kept))
    assert len(kept) == max(1, round(share * count))
    gaps = np.diff(kept)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert kept_blocks(range(6), 2 / 6) == [0, 5]


def columns(*leaves: tuple[str, Any, tuple[Any, ...]], **more: Any) -> Any:
    made = [Leaf(name, str(array.dtype), (None, *shape)) for name, array, shape in leaves]
    return columns_of(made, [array for _, array, _ in leaves], **more)


NUMBERS = np.random.default_rng(0).normal(5, 3, size=(50, 4)).astype(np.float32)
IDS = np.random.default_rng(0).integers(0, 100, size=(50, 30))


def words(found: Any, outputs: tuple[int, ...] = (3,), **more: Any) -> list[str]:
    more = {"keyed": False, "kind": "logits", "family": "classes", **more}
    return [design.word for design in designs(found, outputs=outputs, **more)]


def test_a_table_is_brought_to_one_scale() -> None:
    constant = NUMBERS.copy()
    constant[:, 1] = 7
    (column,) = columns(("x", constant, (4,)))
    scaled = (constant - column.mean) / column.spread
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0), [1, 0, 1, 1], atol=1e-4)
    assert words((column,)) == ["linear", "mlp"]


def test_a_text_is_a_bag_with_its_mask_and_what_says_nothing_is_left_out() -> None:
    mask = np.ones_like(IDS)
    found = columns(("input_ids", IDS, (30,)), ("token_type_ids", 0 * mask, (30,)), ("attention_mask", mask, (30,)))
    assert [column.use for column in found] == ["tokens", "unused", "mask"]
    assert found[0].size == IDS.max() + 2
    assert not found[0].in_places
    assert words(found) == ["linear", "mlp", "conv1d"]
    assert words(found, (30, 5)) == ["linear", "conv1d"]


def test_a_few_categories_are_looked_up_each_in_its_place() -> None:
    found = columns(("number", NUMBERS, (4,)), ("category", IDS[:, :3], (3,)))
    assert [column.use for column in found] == ["numbers", "tokens"]
    assert found[1].in_places
    assert words(found) == ["linear", "mlp"]


def test_whole_numbers_that_the_teacher_looks_up_nowhere_are_amounts() -> None:
    times = np.array([[1_700_000_000, 3], [1_700_086_400, 5]] * 4)
    for vocabulary in (0, 1000):
        (column,) = columns(("x", times, (2,)), vocabulary=vocabulary)
        assert column.use == "numbers"
        np.testing.assert_allclose(column.spread, [43_200, 1], rtol=1e-6)
    (few, many) = columns(("a", IDS[:, 0], ()), ("b", IDS, (30,)), vocabulary=100)
    assert (few.use, many.use) == ("tokens", "tokens")
    assert [column.use for column in columns(("a", IDS[:, 0], ()), ("b", IDS, (30,)), vocabulary=0)] == ["numbers"] * 2


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_columns_of_yes_and_no_are_no_text(dtype: Any) -> None:
    dummies = np.eye(20)[np.arange(60) % 20].astype(dtype)
    (column,) = columns(("x", dummies, (20,)), vocabulary=None)
    assert column.use == "numbers"


def test_only_beside_tokens_does_a_name_say_that_there_is_nothing_to_see() -> None:
    place = np.arange(50)
    named = ("customer_segment", "wears_mask", "position_in_list")
    for vocabulary in (None, 0):
        found = columns(*((name, place, ()) for name in named), vocabulary=vocabulary)
        assert {column.use for column in found} == {"tokens" if vocabulary is None else "numbers"}
    found = columns(("ids", IDS, (30,)), ("ad_position", place, ()), ("position_ids", IDS, (30,)), vocabulary=None)
    assert [column.use for column in found] == ["tokens", "tokens", "unused"]


@pytest.mark.parametrize(
    ("shape", "more", "axis", "last"),
    [
        ((12, 25), {}, 0, "conv1d"),
        ((25, 12), {}, 1, "conv1d"),
        ((29, 12), {"channels": 12}, 1, "conv1d"),
        ((12, 29), {"channels": 29}, 1, "conv1d"),
        ((3, 8, 8), {}, 0, "conv2d"),
        ((8, 8, 3), {"channels_last": True}, 2, "conv2d"),
        ((4, 40), {"channels_last": True}, 1, "conv1d"),
    ],
)
def test_channels_are_found(shape: tuple[int, ...], more: dict[str, Any], axis: int, last: str) -> None:
    found = columns(("x", np.random.default_rng(0).normal(size=(10, *shape)), shape), **more)
    assert found[0].channel_axis == axis
    assert words(found)[-1] == last


def test_what_there_is_no_simple_student_for_is_refused() -> None:
    with pytest.raises(ModelError, match="one for each token"):
        words(columns(("x", np.zeros((2, 3, 8, 8)), (3, 8, 8))), (2, 8, 8))
    big = columns(("x", np.zeros((2, 3, 224, 224)), (3, 224, 224)))
    assert words(big) == ["conv2d"]


def test_values_start_on_their_scale() -> None:
    targets = np.random.default_rng(0).normal(300, 20, size=(50, 1))
    (design, *_) = designs(
        columns(("x", NUMBERS, (4,))), keyed=False, outputs=(1,), kind="regression", family="values", targets=targets
    )
    np.testing.assert_allclose([design.shift, design.scale], [targets.mean(0), targets.std(0)], rtol=1e-5)


def tried(word: str, *bounds: float) -> Tried:
    design = Design(word, (), False, (2,), "logits")
    return Tried(design, Interval(*bounds) if bounds else None, "" if bounds else "diverged")


def test_the_surest_wins_not_the_luckiest_and_of_equals_the_simplest() -> None:
    lucky, sure, failed = tried("linear", 0.9, 0.7, 0.95), tried("mlp", 0.88, 0.8, 0.93), tried("conv1d")
    assert best_of([lucky, sure, failed], greater_is_better=True) is sure
    assert best_of([tried("mlp", 2.0, 1.0, 3.0), low := tried("linear", 2.1, 2.0, 2.4)], greater_is_better=False) is low
    first, second = tried("linear", 0.9, 0.8, 0.95), tried("mlp", 0.9, 0.8, 0.95)
    assert best_of([first, second], greater_is_better=True) is first
    with pytest.raises(ModelError, match="diverged"):
        best_of([failed], greater_is_better=True)
