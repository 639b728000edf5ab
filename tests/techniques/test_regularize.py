"""What regularization decides with no framework, and how the technique carries it through the loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbopt
from nbopt.comparison import Comparison
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ModelError
from nbopt.measurement.predictions import Scored
from nbopt.runs import RunStore
from nbopt.techniques._regularize.calibrating import Moments, change_of
from nbopt.techniques._regularize.diagnosis import diagnose, no_better_than_a_constant
from nbopt.techniques._regularize.places import Place, Site, dropout_sites, norm_places
from nbopt.techniques.regularize import OFF, Regularize
from tests.conftest import Digits


def test_dropout_goes_before_hidden_layers_and_the_head() -> None:
    places = [
        Place("stem", "conv", size=(28, 28)),
        Place("second", "conv", hidden=True, size=(28, 28), source=1),
        Place("wide", "conv", hidden=True, size=(14, 14), source=2, depthwise=True),
        Place("third", "conv", hidden=True, size=(7, 7), source=3),
        Place("fc", "linear", hidden=True, source=4),
        Place("head", "linear", hidden=True, source=5),
    ]
    assert dropout_sites(places, 0.4) == [
        Site("third", "channels", 0.2),
        Site("fc", "before", 0.4),
        Site("head", "before", 0.4),
    ]


def test_the_first_layer_hears_data_and_is_left_alone() -> None:
    assert dropout_sites([Place("only", "linear")], 0.4) == []
    assert dropout_sites([Place("a", "linear"), Place("b", "linear", hidden=True)], 0.4) == [Site("b", "before", 0.4)]


def test_queries_keys_and_values_are_left_alone_and_two_heads_are_not_both() -> None:
    qkv = [Place(name, "linear", hidden=True, source=7) for name in "qkv"]
    places = [Place("in", "linear"), *qkv, Place("out", "linear", hidden=True, source=8)]
    assert dropout_sites(places, 0.1) == [Site("out", "before", 0.1)]


def test_recurrent_layers_between_and_inside() -> None:
    places = [
        Place("first", "stack"),
        Place("second", "recurrent", hidden=True, source=1),
        Place("head", "linear", hidden=True, source=2),
    ]
    assert dropout_sites(places, 0.2) == [
        Site("first", "between", 0.2),
        Site("second", "before", 0.2),
        Site("head", "before", 0.2),
    ]


@given(st.lists(st.floats(0.05, 0.9), min_size=1, max_size=4), st.floats(0.05, 0.9))
def test_an_authors_places_and_proportions_stay(rates: list[float], rate: float) -> None:
    places = [Place(f"drop{i}", "dropout", rate=own) for i, own in enumerate(rates)]
    sites = dropout_sites([Place("in", "linear"), *places, Place("head", "linear", hidden=True, dropped=True)], rate)
    assert [site.how for site in sites] == ["existing"] * len(rates)
    assert max(site.rate for site in sites) == pytest.approx(rate)
    for site, own in zip(sites, rates, strict=True):
        assert site.rate / sites[0].rate == pytest.approx(own / rates[0])


def test_a_head_with_nothing_before_it_gets_dropout_beside_the_authors() -> None:
    places = [Place("drop", "dropout", rate=0.0), Place("head", "linear", hidden=True)]
    assert dropout_sites(places, 0.3) == [Site("drop", "existing", 0.3), Site("head", "before", 0.3)]


def test_norms_go_where_there_are_none() -> None:
    places = [
        Place("a", "conv", normed=True),
        Place("b", "conv"),
        Place("c", "linear"),
        Place("twice", "linear"),
        Place("twice", "linear"),
        Place("head", "linear"),
    ]
    assert [place.name for place in norm_places(places)] == ["b", "c"]
    assert norm_places([*places, Place("att", "attention")]) == []


@given(st.integers(0, 1000), st.integers(2, 5))
def test_moments_of_batches_are_those_of_all(seed: int, batches: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(3, 2, (8, 4, 5)) for _ in range(batches)]
    moments, whole = Moments(), np.concatenate(parts).reshape(-1, 5)
    for part in parts:
        moments.add(part)
    np.testing.assert_allclose(moments.mean, whole.mean(0))
    np.testing.assert_allclose(moments.variance, whole.var(0), atol=1e-9)


def test_a_change_is_a_share_of_the_spread() -> None:
    x = np.random.default_rng(0).normal(0, 2, (1000, 3))
    assert change_of(x, x) == 0
    assert change_of(x, x + 0.2) == pytest.approx(0.1, rel=0.1)
    assert math.isinf(change_of(x, x[:, :2]))
    assert math.isinf(change_of(x, np.where(x > 4, np.nan, x)))


def test_what_has_learned_nothing_is_told_from_what_has() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 500)
    constant = np.full((500, 3), 1 / 3)
    assert no_better_than_a_constant(Scored(y, constant))
    assert not no_better_than_a_constant(Scored(y, 0.5 * constant + 0.5 * np.eye(3)[y]))
    assert no_better_than_a_constant(Scored(y % 2, np.full(500, 0.5)))
    values = rng.normal(size=500)
    assert no_better_than_a_constant(Scored(values, np.zeros(500)))
    assert not no_better_than_a_constant(Scored(values, 0.5 * values))
    rare = (np.arange(10_000) < 100).astype(int)
    for weighed in (np.where(rare, 0.8, 0.2), np.stack([np.where(rare, 0.2, 0.8), np.where(rare, 0.8, 0.2)], -1)):
        assert not no_better_than_a_constant(Scored(rare, weighed))
    drawn = np.random.default_rng(1).uniform(0.3, 0.7, 10_000)
    assert no_better_than_a_constant(Scored(rare, drawn))
    labels = rng.integers(0, 2, (500, 4))
    assert no_better_than_a_constant(Scored(labels, np.full((500, 4), 0.5)))
    assert not no_better_than_a_constant(Scored(labels, 0.5 + 0.4 * (labels - 0.5)))


def test_its_label_names_what_regularizes() -> None:
    assert Regularize().label == "regularize"
    assert Regularize(dropout=0.3, averaging="ema", epochs=4).label == "regularize dropout 0.3 averaging ema"


@pytest.fixture(scope="module")
def overfitted(digits: Digits) -> Any:
    """Return a network that knows 150 digits by heart, bound."""
    import torch

    from tests.models import mlp, train

    torch.manual_seed(0)
    x, y = digits.x, digits.y
    model = train(mlp(), x[:150], y[:150], steps=120)
    splits = {"train": (x[:150], y[:150]), "valid": (x[150:600], y[150:600]), "test": (x[600:], y[600:])}
    return nbopt.Workload(model, **splits, name="small")


def test_the_gap_has_an_interval_and_both_figures(overfitted: Any) -> None:
    seen = diagnose(overfitted.model, Context(overfitted))
    assert seen.overfitted
    assert not seen.untrained
    assert seen.train.value == 1.0
    assert seen.gap.value == pytest.approx(seen.train.value - seen.valid.value)
    assert seen.gap.low < seen.gap.value < seen.gap.high
    assert "overfitted: accuracy 100.0 on 150 rows of train" in seen.text
    assert "450 rows of valid, a gap of" in seen.text


def test_rows_of_valid_are_drawn_from_all_of_it(overfitted: Any, digits: Digits) -> None:
    order = np.argsort(digits.y, kind="stable")
    x, y = digits.x[order], digits.y[order]
    work = nbopt.Workload(overfitted.model, train=(x, y), valid=(x, y))
    part, whole = diagnose(work.model, Context(work), most=600), diagnose(work.model, Context(work))
    assert (part.rows[1], whole.rows[1]) == (600, len(x))
    assert part.valid.low < whole.valid.value < part.valid.high
    assert not part.overfitted


def test_a_gap_of_losses_has_the_same_sign(digits: Digits, overfitted: Any) -> None:
    x, y = digits.x, digits.y
    work = nbopt.Workload(overfitted.model, train=(x[:150], y[:150]), valid=(x[150:600], y[150:600]), metric="log_loss")
    seen = diagnose(work.model, Context(work))
    assert seen.overfitted
    assert seen.gap.value == pytest.approx(seen.valid.value - seen.train.value)


@pytest.fixture(scope="module")
def regularized(overfitted: Any, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    step = Regularize(dropout=0.3, norm="batchnorm", label_smoothing=0.1, mixup=0.2, averaging="ema", epochs=6)
    store = RunStore(tmp_path_factory.mktemp("home"))
    return nbopt.optimize(overfitted, step, runtimes=["onnxruntime"], threads=1, store=store)


def test_the_control_trains_without_regularizers(regularized: Comparison) -> None:
    run, control = regularized["regularize/onnxruntime"], regularized["control/onnxruntime"]
    assert not run.failed, run.reason
    assert run.epochs == control.epochs == 6
    assert any("without label smoothing, mixup, averaging" in note for note in control.notes)
    assert any(note.startswith("overfitted") for note in run.notes)


def test_what_ships_has_neither_dropout_nor_batchnorm(regularized: Comparison) -> None:
    import torch

    run = regularized["regularize/onnxruntime"]
    assert any("BatchNorm of 1 layer folded and Dropout taken out of 1 place" in note for note in run.notes)
    assert not any(isinstance(m, (torch.nn.BatchNorm1d, torch.nn.Dropout)) for m in run.model.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in run.model.modules())
    assert run.params == regularized["baseline/onnxruntime"].params


def test_where_nothing_is_overfitted_it_says_so_and_stops(digits: Digits, overfitted: Any) -> None:
    x, y = digits.x, digits.y
    work = nbopt.Workload(overfitted.model, train=(x[600:1200], y[600:1200]), valid=(x[1200:], y[1200:]))
    run = nbopt.optimize(work, Regularize(dropout=0.3), runtimes=["onnxruntime"])["regularize/onnxruntime"]
    assert run.failed
    assert "not overfitted: accuracy" in run.reason
    assert "--anyway" in run.reason
    draft = Regularize(dropout=0.3, anyway=True).apply(Draft(work.model), Context(work))
    assert draft.model is not work.model
    assert draft.notes[0].startswith("not overfitted")


def test_with_another_technique_it_leaves_the_draft_to_that(digits: Digits, overfitted: Any) -> None:
    x, y = digits.x, digits.y
    work = nbopt.Workload(overfitted.model, train=(x[600:1200], y[600:1200]), valid=(x[1200:], y[1200:]))
    recipe = "regularize --dropout 0.3 | quantize"
    run = nbopt.optimize(work, recipe, runtimes=["onnxruntime"])["regularize+quantize/onnxruntime"]
    assert not run.failed
    assert "nothing was regularized; --anyway goes on" in run.notes


def test_an_untrained_model_is_trained_for_the_diagnosis_and_that_is_the_control(digits: Digits) -> None:
    import torch

    from tests.models import mlp

    torch.manual_seed(0)
    x, y = digits.x, digits.y
    work = nbopt.Workload(mlp(), train=(x[:150], y[:150]), valid=(x[150:600], y[150:600]), test=(x[600:], y[600:]))
    step = Regularize(averaging="ema", epochs=30, learning_rate=1e-2)
    draft = step.apply(Draft(work.model), Context(work))
    assert draft.plain is not None
    assert draft.plain.plan.averaging == "none"
    assert any("after a training without regularizers" in note for note in draft.notes)
    trainings: list[float] = []
    result = nbopt.optimize(
        work,
        step,
        runtimes=["onnxruntime"],
        progress=lambda p: trainings.append(p.done) if p.what == "training" else None,
    )
    assert result["control/onnxruntime"].quality > 0.5
    # 30 epochs of the plain training, which is the control as well, and 30 of the regularized one; each tells its end.
    assert sum(done.is_integer() for done in trainings) == 2 * 30


def test_a_cocktail_may_leave_each_of_its_parts_out(overfitted: Any) -> None:
    context = Context(overfitted)
    draft = Regularize().apply(Draft(overfitted.model), context)
    assert {d.name for d in draft.space} == {
        "norm", "dropout", "weight_decay", "label_smoothing", "mixing", "averaging",
    }  # fmt: skip
    assert draft.search is not None
    assert draft.search.trials == 16
    for dimension in draft.space:
        assert dimension.default == "off"
        assert dimension.apply(draft, "off") is draft
        for value in dimension.choices[1:]:
            applied = dimension.apply(draft, value)
            assert applied.plan != draft.plan or applied.model is not draft.model
    assert draft.plan.adjusted(**OFF) == draft.plan
    mixing = next(d for d in draft.space if d.name == "mixing")
    assert mixing.choices == ("off", "mixup")  # rows of 64 columns are no images


def test_what_is_named_is_fixed_and_not_searched(overfitted: Any) -> None:
    draft = Regularize(dropout=0.2, cocktail=True).apply(Draft(overfitted.model), Context(overfitted))
    assert "dropout" not in {d.name for d in draft.space}
    assert len(draft.space) == 5
    for named in (Regularize(dropout=0.2), Regularize(patience=3)):
        assert named.apply(Draft(overfitted.model), Context(overfitted)).space == ()


def test_dimensions_that_are_there_are_not_given_twice(overfitted: Any) -> None:
    first = Regularize().apply(Draft(overfitted.model), Context(overfitted))
    again = Regularize().apply(first, Context(overfitted))
    assert len(again.space) == len(first.space)


def test_what_does_not_go_is_told(digits: Digits) -> None:
    import torch

    from tests.models import TextEncoder

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokens = {"input_ids": rng.integers(0, 50, (60, 6)), "attention_mask": np.ones((60, 6), np.int64)}
    labels = rng.integers(0, 3, 60)
    work = nbopt.Workload(TextEncoder().eval(), train={**tokens, "labels": labels}, valid={**tokens, "labels": labels})
    with pytest.raises(DataError, match="token"):
        Regularize(mixup=0.2, anyway=True, epochs=1).apply(Draft(work.model), Context(work))
    draft = Regularize(anyway=True, epochs=1).apply(Draft(work.model), Context(work))
    assert any(note.startswith("mixing is not searched: an input of int64") for note in draft.notes)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    values = nbopt.Workload(torch.nn.Linear(4, 1).eval(), train=(x, x[:, 0]), valid=(x, x[:, 0]))
    with pytest.raises(ModelError, match="values"):
        Regularize(label_smoothing=0.1, anyway=True, epochs=1).apply(Draft(values.model), Context(values))
    with pytest.raises(ModelError, match="Dropout"):
        Regularize(dropout=0.1, anyway=True, epochs=1).apply(Draft(values.model), Context(values))
    alone = nbopt.Workload(torch.nn.Linear(4, 1).eval(), valid=(x, x[:, 0]))
    with pytest.raises(DataError, match="train data"):
        Regularize().apply(Draft(alone.model), Context(alone))
