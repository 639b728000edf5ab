"""All candidates in one set of weights: masks of one, mixtures of many, and the gradient of a mixture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.architectures import space_of
from nbopt.architectures.factors import Factors
from nbopt.controllers.relaxed import softmax
from nbopt.narrowing.widths import unit_masks
from tests.architectures.small import IMPORTANCES, PARTS, SHAPES

Array = np.ndarray[Any, Any]
SPACE = space_of(PARTS)
FACTORS = Factors(SPACE, IMPORTANCES)
SETTINGS = st.tuples(*(st.integers(0, size - 1) for size in SPACE.grid.sizes))


@given(SETTINGS)
def test_a_candidates_weights_are_what_narrowing_leaves(setting: tuple[int, ...]) -> None:
    blueprint = SPACE.blueprint(setting)
    going = {width.name: FACTORS.going(width, blueprint.widths[width.name]) for width in PARTS.widths}
    expected = {name: np.ones(shape, bool) for name, shape in SHAPES.items()}
    for name, mask in unit_masks(PARTS.widths, going, SHAPES).items():
        expected[name] &= mask
    for kernel in PARTS.kernels:
        rim = (kernel.size - blueprint.kernels[kernel.layer]) // 2
        inner = np.zeros((kernel.size, kernel.size), bool)
        inner[rim : kernel.size - rim, rim : kernel.size - rim] = True
        expected[kernel.weight] &= inner
    if "a" in blueprint.skipped:
        expected["a2_scale"][:] = False
    masks = FACTORS.masks(setting)
    assert all(np.array_equal(mask, expected[name]) for name, mask in masks.items())
    assert all(mask.all() for name, mask in expected.items() if name not in masks)
    assert FACTORS.gated(FACTORS.one_hot(setting)) == {"b": float("b" not in blueprint.skipped)}


@given(SETTINGS, SETTINGS)
def test_what_a_narrow_candidate_has_a_wider_one_has_too(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    narrow, wide = np.minimum(one, other), np.maximum(one, other)
    fewer, more = FACTORS.masks(narrow.tolist()), FACTORS.masks(wide.tolist())
    assert all((more[name] | ~fewer[name]).all() for name in fewer)


def test_the_start_has_all_weights() -> None:
    assert SPACE.grid.start is not None
    assert all(mask.all() for mask in FACTORS.masks(SPACE.grid.start).values())


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_gradient_of_a_mixture_is_that_of_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [softmax(rng.normal(size=size)) for size in SPACE.grid.sizes]
    own = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    slopes = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}

    def loss(mixture: list[Array]) -> float:
        total = 3.0 * FACTORS.gated(mixture)["b"]
        for name, parts in FACTORS.mixed(mixture).items():
            value = own[name]
            for part in parts:
                value = value * part
            total += float((slopes[name] * value).sum())
        return total

    came = FACTORS.gradients(weights, {name: slopes[name] * own[name] for name in SHAPES}, {"b": 3.0})
    for at, row in enumerate(weights):
        for option in range(len(row)):
            up, down = [[*map(np.copy, weights)] for _ in range(2)]
            up[at][option] += 1e-4
            down[at][option] -= 1e-4
            assert came[at][option] == pytest.approx((loss(up) - loss(down)) / 2e-4, rel=1e-4, abs=1e-4)
