"""Figures of a study: each has a static form that says what it shows, and Plotly's beside it."""

from __future__ import annotations

import base64
from typing import Any
from xml.etree import ElementTree as ET

import optuna
import pytest

from nbopt.charts import KINDS, MOST_TRIALS, figure, importances, points_of, share_of
from nbopt.errors import OptionError

optuna.logging.set_verbosity(optuna.logging.ERROR)


def objective(trial: Any) -> float:
    kind = trial.suggest_categorical("kind <b>", ["a", "b"])
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    if trial.number == 5:
        raise optuna.TrialPruned
    if kind == "a":
        trial.suggest_int("only a", 1, 9)
    return float(100 * rate + (kind == "a") * 0.01)


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=30)
    return study


@pytest.mark.parametrize("kind", KINDS)
def test_each_has_a_picture_words_and_an_interactive_form(kind: str, study: optuna.Study) -> None:
    found = figure(study, kind, "auc")
    ET.fromstring(found.svg)
    assert found.said
    bundle = found._repr_mimebundle_()
    picture = bundle["text/html"].split("base64,")[1].split('"')[0]
    assert base64.b64decode(picture).decode() == found.svg
    assert "<b>" not in bundle["text/html"]
    assert "data" in bundle["application/vnd.plotly.v1+json"]
    assert "<script" not in bundle["text/html"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trials", [0, 1, 2])
def test_few_trials_are_no_reason_to_fail(kind: str, trials: int) -> None:
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=trials)
    ET.fromstring(figure(study, kind).svg)


@pytest.mark.parametrize("kind", KINDS)
def test_of_several_scores_the_first_is_shown(kind: str) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: (t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), n_trials=25)
    found = figure(study, kind)
    ET.fromstring(found.svg)
    assert found.plotly.to_dict()["data"]
    if kind == "importances":
        shares = importances(study)
        assert shares["x"] > shares["y"]


def test_what_matters_is_found(study: optuna.Study) -> None:
    assert next(iter(importances(study))) == "rate"


def test_the_best_is_named(study: optuna.Study) -> None:
    assert f"in trial {study.best_trial.number}" in figure(study, "history").said
    assert f"best score {study.best_value:.4g}" in figure(study, "parallel").said


def test_many_trials_are_cut_to_the_best_and_the_latest() -> None:
    study = optuna.create_study()
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for at in range(900):
        study.add_trial(optuna.trial.create_trial(params={"x": 0.5}, distributions=space, value=float(abs(at - 300))))
    kept = [point.number for point in points_of(study)]
    assert len(kept) == MOST_TRIALS
    assert {300, 899} <= set(kept)


def test_places_in_a_range() -> None:
    made = optuna.distributions
    assert share_of(made.FloatDistribution(1e-4, 1, log=True), 1e-2) == pytest.approx(0.5)
    assert share_of(made.IntDistribution(0, 4), 1) == 0.25
    assert share_of(made.CategoricalDistribution(["a", "b", "c"]), "c") == 1
    assert share_of(made.FloatDistribution(2, 2), 2) == 0.5


def test_a_wrong_name_is_told(study: optuna.Study) -> None:
    with pytest.raises(OptionError, match="history"):
        figure(study, "histroy")
