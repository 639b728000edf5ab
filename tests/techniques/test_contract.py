"""One contract for every technique that is found: how it declares and writes itself, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

import nbopt
from nbopt.draft import Context, Draft
from nbopt.errors import NbOptError, OptionError
from nbopt.recipe import Recipe
from nbopt.technique import Technique
from nbopt.techniques import all_techniques, technique_named
from nbopt.workload import Workload
from tests.conftest import Digits, belongings

TECHNIQUES = all_techniques()
OPTIONS = [
    pytest.param(technique, spec, id=f"{word}-{spec.name}")
    for word, technique in TECHNIQUES.items()
    for spec in dataclasses.fields(technique)
]
each = pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
each_option = pytest.mark.parametrize(("technique", "spec"), OPTIONS)


def default_of(spec: dataclasses.Field[Any]) -> Any:
    return spec.default if spec.default is not dataclasses.MISSING else spec.default_factory()  # type: ignore[misc]


def other_value(spec: dataclasses.Field[Any]) -> Any:
    """Return a value that is allowed and not the default, or the default where there is no telling."""
    meta, default = spec.metadata, default_of(spec)
    if meta["choices"]:
        return next((choice for choice in meta["choices"] if choice != default), default)
    if isinstance(default, bool):
        return not default
    if meta["low"] is not None and meta["high"] is not None:
        middle = (meta["low"] + meta["high"]) / 2
        if isinstance(default, int) or "int" in str(spec.type).split(" | "):
            return int(middle) if int(middle) != default else int(middle) - 1
        return middle if middle != default else (middle + meta["high"]) / 2
    if isinstance(default, (int, float)):
        return default + 1
    return default


def test_they_are_found() -> None:
    assert {"prune", "quantize"} <= set(TECHNIQUES)


@each
def test_it_is_a_frozen_dataclass_under_the_word_of_its_file(technique: type[Technique]) -> None:
    assert issubclass(technique, Technique)
    assert technique.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert technique.__module__ == f"nbopt.techniques.{technique.word}"
    assert technique_named(technique.word) is technique
    assert getattr(nbopt, technique.__name__) is technique
    assert technique.__name__ in dir(nbopt)
    with pytest.raises(dataclasses.FrozenInstanceError):
        technique().word = "another"  # type: ignore[misc]


@each
def test_it_says_what_it_does_and_where_that_comes_from(technique: type[Technique]) -> None:
    assert technique.summary
    assert "\n" not in technique.summary
    assert not technique.summary.endswith(".")
    assert technique.__doc__
    assert "https://" in technique.__doc__
    assert technique.apply.__doc__


@each_option
def test_every_option_is_declared_with_its_effect(technique: type[Technique], spec: dataclasses.Field[Any]) -> None:
    assert spec.metadata, f"{technique.word} {spec.name} is not declared by option()"
    assert len(spec.metadata["help"]) > 8
    default = default_of(spec)
    low, high = spec.metadata["low"], spec.metadata["high"]
    if default is not None and low is not None:
        assert default > low or (default == low and not spec.metadata["open"])
    if default is not None and high is not None:
        assert default < high or (default == high and not spec.metadata["open"])


@each
def test_its_defaults_are_valid_and_it_is_equal_to_its_like(technique: type[Technique]) -> None:
    assert technique() == technique()
    assert hash(technique()) == hash(technique())
    assert technique().text() == technique.word
    assert technique().label


@each_option
def test_values_out_of_range_are_refused_with_a_message(
    technique: type[Technique], spec: dataclasses.Field[Any]
) -> None:
    meta = spec.metadata
    bad: list[Any] = []
    if meta["choices"]:
        bad += ["no such choice", 12345]
    if meta["low"] is not None:
        bad += [meta["low"] - 1, "many", math.nan, -math.inf, True]
    if meta["high"] is not None:
        bad += [meta["high"] + 1, math.inf]
    if meta["open"]:
        bad += [bound for bound in (meta["low"], meta["high"]) if bound is not None]
    if isinstance(default_of(spec), bool) and not meta["choices"]:
        bad += ["yes", 2]
    for value in bad:
        with pytest.raises(OptionError) as caught:
            technique(**{spec.name: value})
        flag = f"{technique.word} --{spec.name.replace('_', '-')}"
        assert flag in caught.value.expected
        assert caught.value.came
        assert caught.value.do


@each_option
def test_an_unknown_option_suggests_the_nearest(technique: type[Technique], spec: dataclasses.Field[Any]) -> None:
    flag = f"--{spec.name.replace('_', '-')}"
    with pytest.raises(OptionError) as caught:
        Recipe.parse(f"{technique.word} {flag}x 1")
    assert flag in caught.value.do


@each_option
def test_a_recipe_writes_it_and_reads_it_back(technique: type[Technique], spec: dataclasses.Field[Any]) -> None:
    step = technique(**{spec.name: other_value(spec)})
    recipe = Recipe.of(step, technique(), seed=3)
    assert Recipe.parse(recipe.text(), seed=3) == recipe
    assert step.label


@each
def test_all_options_at_once_go_both_ways(technique: type[Technique]) -> None:
    step = technique(**{spec.name: other_value(spec) for spec in dataclasses.fields(technique)})
    assert Recipe.parse(Recipe.of(step).text()).techniques == (step,)


@each
def test_applied_to_a_torch_model_it_leaves_the_users_as_it_is(
    technique: type[Technique], trained_cnn: Any, digits: Digits
) -> None:
    images = digits.x.reshape(-1, 1, 8, 8)
    work = Workload(trained_cnn, train=(images[:100], digits.y[:100]), valid=(images[100:150], digits.y[100:150]))
    before = belongings(trained_cnn, images)
    draft = technique().apply(Draft(work.model), Context(work, seed=0))
    after = belongings(trained_cnn, images)
    for part, value in before.items():
        assert after[part] == value, part
    assert isinstance(draft, Draft)
    if draft.model is not work.model:
        shared = {p.data_ptr() for p in draft.model.parameters()} & {p.data_ptr() for p in trained_cnn.parameters()}
        assert not shared


@pytest.fixture(scope="module")
def keras_cnn() -> Any:
    from tests.runtimes.keras_models import model

    return model("cnn")


@each
def test_applied_to_a_keras_model_it_leaves_the_users_as_it_is(
    technique: type[Technique], keras_cnn: Any, digits: Digits
) -> None:
    images = digits.x.reshape(-1, 8, 8, 1)
    work = Workload(keras_cnn, train=(images[:100], digits.y[:100]), valid=(images[100:150], digits.y[100:150]))

    def everything() -> tuple[Any, ...]:
        outputs = np.asarray(keras_cnn(images[:20], training=False)).tobytes()
        weights = [weight.tobytes() for weight in keras_cnn.get_weights()]
        flags = [(layer.name, layer.trainable) for layer in keras_cnn.layers]
        return outputs, weights, flags, keras_cnn.compiled, len(keras_cnn.layers)

    before = everything()
    draft = technique().apply(Draft(work.model), Context(work, seed=0))
    assert everything() == before
    assert isinstance(draft, Draft)


@each
def test_a_model_that_it_can_not_work_on_is_told_not_broken(technique: type[Technique]) -> None:
    import torch

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] * 2

    rng = np.random.default_rng(0)
    data = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 2, 40)
    work = Workload(Sum().eval(), train=data, valid=data)
    told: NbOptError | None = None
    try:
        assert isinstance(technique().apply(Draft(work.model), Context(work)), Draft)
    except NbOptError as error:
        told = error
    assert told is None or all((told.expected, told.came, told.do))
