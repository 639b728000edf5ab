"""The space that is searched comes from the framework and the model; all steps of a recipe share one search."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nbopt
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, OptionError
from nbopt.recipe import Recipe
from nbopt.searching.clashes import compatible
from nbopt.space import Dimension, Search
from nbopt.techniques.schedule import COMPARED, Schedule
from nbopt.techniques.tune import RATE_SPAN, Tune, repeats_of, space_of
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import Lstm, mlp


@pytest.fixture
def work(digits: Digits) -> Workload:
    return Workload(mlp(), train=digits.train, valid=digits.valid, test=digits.test, name="fresh digits")


def space(draft: Draft) -> dict[str, Dimension]:
    return {each.name: each for each in draft.space}


def test_the_space_is_around_the_plan_and_its_defaults_change_nothing(work: Workload) -> None:
    plan = TrainingPlan(epochs=3, learning_rate=2e-3, weight_decay=0.05, optimizer="adam", batch_size=100)
    draft = Tune().apply(Draft(work.model, plan), Context(work))
    found = space(draft)
    assert set(found) == {"learning_rate", "schedule", "weight_decay", "optimizer", "batch_size"}
    rate = found["learning_rate"]
    assert (rate.low, rate.high, rate.log) == (2e-3 / RATE_SPAN, 2e-3 * RATE_SPAN, True)
    assert found["batch_size"].choices == (32, 64, 100, 128)
    assert {0.0, 0.05} <= set(found["weight_decay"].choices)
    for dimension in found.values():
        assert dimension.apply(draft, dimension.default).plan == draft.plan
    other = found["batch_size"].apply(draft, 32)
    assert other.plan == draft.plan.adjusted(batch_size=32)
    assert draft.plan.epochs == 3
    assert Tune(epochs=7).apply(Draft(work.model, plan), Context(work)).plan.epochs == 7
    assert Tune().apply(Draft(work.model), Context(work)).plan.epochs == 5
    assert draft.control_plan == draft.plan


def test_a_loader_keeps_its_batches(digits: Digits) -> None:
    x, y = digits.train
    batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, 500, 50)]
    work = Workload(mlp(), train=batches, valid=digits.valid)
    assert "batch_size" not in space(Tune().apply(Draft(work.model), Context(work)))


def dropping(kind: str) -> Any:
    if kind == "torch":
        return nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.4), nn.Linear(64, 32), nn.Dropout(0.2), nn.Linear(32, 10)
        ).eval()
    import keras

    L = keras.layers
    return keras.Sequential(
        [keras.Input((64,)), L.Dense(64, "relu"), L.Dropout(0.4), L.Dense(32), L.Dropout(0.2), L.Dense(10)]
    )


@pytest.mark.parametrize("kind", ["torch", "keras"])
def test_dropout_that_is_there_is_searched_on_copies(kind: str, digits: Digits) -> None:
    model = dropping(kind)
    work = Workload(model, train=digits.train, valid=digits.valid)
    draft = Tune().apply(Draft(model), Context(work))
    found = space(draft)["dropout_rate"]
    assert (found.default, found.low) == (0.4, 0.0)
    changed = found.apply(draft, 0.2)
    name = "p" if kind == "torch" else "rate"

    def rates(which: Any) -> list[float]:
        layers = which.modules() if kind == "torch" else which.layers
        return [getattr(each, name) for each in layers if "Dropout" in type(each).__name__]

    assert rates(changed.model) == pytest.approx([0.2, 0.1])
    assert rates(model) == [0.4, 0.2]
    x = digits.x[:5]
    np.testing.assert_allclose(
        work.framework.predict(changed.model, (x,)), work.framework.predict(model, (x,)), rtol=1e-5
    )


def test_recurrent_layers_and_attention_have_rates_too() -> None:
    from nbopt.techniques._tune import torch as lowering

    model = nn.ModuleList([nn.LSTM(4, 4, 2, dropout=0.3), nn.MultiheadAttention(4, 2, dropout=0.1), nn.Dropout2d(0.5)])
    assert lowering.rates(model) == [0.3, 0.1, 0.5]
    lowering.scale(model, 10)
    assert lowering.rates(model) == [0.95, 0.95, 0.95]

    import keras

    from nbopt.techniques._tune import keras as in_keras

    recurrent = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4, dropout=0.3), keras.layers.Dense(2)])
    assert 0.3 in in_keras.rates(recurrent)
    in_keras.scale(recurrent, 2)
    assert 0.6 in [pytest.approx(rate) for rate in in_keras.rates(recurrent)]


def test_only_some_can_be_searched_and_an_unknown_name_is_told(work: Workload) -> None:
    draft = Tune(only=("optimizer", "learning_rate")).apply(Draft(work.model), Context(work))
    assert set(space(draft)) == {"optimizer", "learning_rate"}
    with pytest.raises(OptionError, match="learning_rat"):
        Tune(only=("learning_rat",)).apply(Draft(work.model), Context(work))


def test_what_is_open_in_another_step_is_searched_with_it(work: Workload) -> None:
    context = Context(work)
    for order in ("tune | schedule", "schedule | tune"):
        draft = Draft(work.model)
        for step in nbopt.Recipe.parse(order).techniques:
            draft = step.apply(draft, context)
        names = [each.name for each in draft.space]
        assert sorted(names) == ["batch_size", "learning_rate", "optimizer", "schedule", "weight_decay"]
        assert draft.search is not None
        assert draft.search.trials == 20
        assert draft.search.first
        assert set(COMPARED) <= set(space(draft)["schedule"].choices)


def test_a_schedule_that_a_step_was_told_is_not_searched(work: Workload) -> None:
    draft = Schedule(schedule="wsd").apply(Draft(work.model), Context(work))
    with pytest.raises(OptionError, match="--only"):
        Tune(only=("schedule",)).apply(draft, Context(work))
    for order in ("tune | schedule --schedule wsd", "schedule --schedule wsd | tune"):
        draft = Draft(work.model)
        for step in nbopt.Recipe.parse(order).techniques:
            draft = step.apply(draft, Context(work))
        assert "schedule" not in space(draft)
        assert draft.plan.schedule == "wsd"


@pytest.mark.parametrize("kind", ["torch", "lstm", "keras"])
def test_width_is_searched_where_weights_are_drawn_anew(kind: str, digits: Digits) -> None:
    model = {"torch": mlp, "lstm": lambda: Lstm().eval(), "keras": lambda: dropping("keras")}[kind]()
    shape = (-1, 8, 8) if kind == "lstm" else (-1, 64)
    (xt, yt), (xv, yv) = digits.train, digits.valid
    work = Workload(model, train=(xt.reshape(shape), yt), valid=(xv.reshape(shape), yv))
    draft = Tune(from_scratch=True).apply(Draft(model), Context(work))
    width = space(draft)["width"]
    assert width.default == 1
    assert width.apply(draft, 1.0) is draft
    framework, x = work.framework, digits.x[:3].reshape(shape)
    before = framework.predict(model, (x,))
    sizes = [framework.count(width.apply(draft, share).model)[0] for share in sorted(width.choices)[:-1]]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < framework.count(model)[0]
    (begin,) = draft.begin
    fresh = begin(framework.clone(width.apply(draft, 0.25).model), 1)
    assert framework.predict(fresh, (x,)).shape == before.shape
    np.testing.assert_array_equal(framework.predict(model, (x,)), before)  # the user's own stays as it is


def test_what_is_trained_keeps_its_width_and_so_does_what_is_held(work: Workload, digits: Digits) -> None:
    draft = Tune().apply(Draft(work.model), Context(work))
    assert "width" not in space(draft)
    assert any("--from-scratch" in note for note in draft.notes)
    draft = Tune(from_scratch=True).apply(Draft(work.model), Context(work))
    fitting = compatible(draft.space, Search(), draft.plan, held=True)
    assert "width" not in {each.name for each in fitting.space}
    assert any("holds weights" in note for note in fitting.notes)
    linear = nn.Sequential(nn.Linear(64, 10)).eval()
    alone = Workload(linear, train=digits.train, valid=digits.valid)
    draft = Tune(from_scratch=True).apply(Draft(linear), Context(alone))
    assert "width" not in space(draft)
    assert any(note.startswith("width was not searched") for note in draft.notes)


def test_the_more_trials_the_more_fresh_seeds() -> None:
    assert [repeats_of(trials, 3) for trials in (1, 20, 60, 1000)] == [2, 2, 5, 8]
    assert repeats_of(60, 1) == 8


def test_from_scratch_begins_each_training_with_weights_of_its_seed(work: Workload) -> None:
    draft = Tune(from_scratch=True).apply(Draft(work.model), Context(work))
    (begin,) = draft.begin
    first, again, other = (begin(work.framework.clone(work.model), seed) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert not torch.equal(first[0].weight, work.model[0].weight)


def test_without_train_there_is_nothing_to_tune(digits: Digits) -> None:
    work = Workload(mlp(), valid=digits.valid)
    with pytest.raises(DataError, match="train"):
        Tune().apply(Draft(work.model), Context(work))
    names = {"learning_rate", "schedule", "weight_decay", "optimizer"}
    assert space_of(TrainingPlan(), work, work.model).keys() == names


@pytest.mark.parametrize("recipe", ["regularize --cocktail --anyway | tune", "tune | regularize --cocktail --anyway"])
def test_dropout_is_one_dimension_beside_regularize(recipe: str, digits: Digits) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10)).eval()
    work = Workload(model, train=digits.train, valid=digits.valid)
    draft = Draft.of(work)
    for step in Recipe.parse(recipe).techniques:
        draft = step.apply(draft, Context(work))
    (dropout,) = [each for each in draft.space if each.name.startswith("dropout")]
    assert dropout.apply(draft, 0.3).model[2].p == pytest.approx(0.3)


def test_the_rate_of_dropout_is_what_its_dimension_says_whatever_was_changed(digits: Digits) -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.1), nn.Linear(32, 10), nn.Dropout(0.05)).eval()
    work = Workload(model, train=digits.train, valid=digits.valid)
    rate = space_of(TrainingPlan(), work, work.model)["dropout_rate"]
    changed = rate.apply(rate.apply(Draft(work.model), 0.5), 0.7).model
    assert [changed[1].p, changed[3].p] == pytest.approx([0.7, 0.35])


@pytest.mark.slow
def test_a_pipeline_is_one_training_for_each_candidate(work: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbopt.frameworks.torch import TorchFramework

    plans = []
    fit = TorchFramework.fit

    def counted(self: Any, model: Any, plan: TrainingPlan, fitting: Any) -> Any:
        plans.append(plan)
        return fit(self, model, plan, fitting)

    monkeypatch.setattr(TorchFramework, "fit", counted)
    tune = "tune --trials 4 --epochs 2 --finalists 1 --repeats 1 --pruner none"
    recipe = f"prune --sparsity 0.5 --epochs 2 --schedule iterative | {tune} | schedule"
    result = nbopt.optimize(work, recipe, runtimes=["onnxruntime"], threads=1)
    run = result["prune+tune+schedule/onnxruntime"]
    assert len(plans) == 4 + 2 + 1  # the trials, the finalists, the control
    assert run.epochs == 2 * (4 + 2)
    # What was pruned stayed so in every training.
    assert run.nonzero_params / run.params == pytest.approx(0.5, abs=0.02)
    assert result["control/onnxruntime"].epochs == 2


@pytest.mark.slow
def test_seeds_repeat_the_training_and_not_the_search(work: Workload) -> None:
    recipe = Tune(trials=3, epochs=2, finalists=1, repeats=1, only=("learning_rate",))
    result = nbopt.optimize(work, recipe, seeds=2, runtimes=["onnxruntime"], threads=1)
    rows = [run for run in nbopt.RunStore().runs() if run.recipe.startswith("tune") and not run.seeds]
    assert sorted(run.epochs for run in rows) == [2, 3 * 2 + 2 * 2]
    assert any("searched with seed 0 alone" in note for run in rows for note in run.notes)
    assert result["tune/onnxruntime"].seeds == (0, 1)
