"""One trial: what an objective gives, raises or leaves out, as an outcome; and its seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from nbopt.studies.opening import REASON, open_study
from nbopt.studies.trials import begin, best_of, evaluate, run_trial, seeded


def fixed(**params: Any) -> Any:
    return optuna.trial.FixedTrial(params)


def broken(trial: Any) -> float:
    rows: list[int] = []
    return float(rows[3])


def pruned(trial: Any) -> float:
    raise optuna.TrialPruned


@pytest.mark.parametrize("value", [1, 1.5, np.float32(2), np.array(3.0), np.array([4.0]), torch.tensor(5.0)])
def test_numbers_of_any_library_are_scores(value: Any) -> None:
    outcome = evaluate(lambda trial: value, fixed())
    assert (outcome.state, outcome.values) == ("complete", (float(np.asarray(value).item()),))


@pytest.mark.parametrize(
    ("value", "told", "missing"),
    [
        (None, "gave None", True),
        ("0.5", "no number", True),
        (True, "no number", True),
        (np.zeros(3), "no number", True),
        ((1.0, 2.0), "not one score", True),
        (float("nan"), "its score was NaN", False),
        (float("inf"), "its score was inf", False),
    ],
)
def test_what_is_no_score_is_a_failed_trial_with_its_reason(value: Any, told: str, missing: bool) -> None:
    outcome = evaluate(lambda trial: value, fixed())
    assert outcome.state == "failed"
    assert told in outcome.reason
    assert outcome.missing == missing


def test_an_error_has_the_line_that_it_came_from() -> None:
    outcome = evaluate(broken, fixed())
    line = broken.__code__.co_firstlineno + 2
    assert outcome.reason == f"IndexError: list index out of range (line {line}: return float(rows[3]))"
    assert not outcome.missing


def test_pruning_and_several_scores() -> None:
    assert evaluate(pruned, fixed()).state == "pruned"
    assert evaluate(lambda trial: (1, 2), fixed(), objectives=2).values == (1.0, 2.0)
    assert "2 scores" in evaluate(lambda trial: 1, fixed(), objectives=2).reason


def test_limits_become_constraints_on_what_the_trial_tells(home: Path) -> None:
    opened = open_study("limits")

    def objective(trial: Any) -> float:
        x = trial.suggest_float("x", 0, 10)
        trial.set_user_attr("latency_ms", x)
        return float(x)

    for _ in range(12):
        run_trial(opened, begin(opened, 0), objective, limits={"latency_ms": 5.0})
    over = [trial for trial in opened.study.trials if trial.params["x"] > 5]
    assert over
    assert all(trial.constraints == {"latency_ms": trial.params["x"] - 5.0} for trial in opened.study.trials)
    (best,) = best_of(opened.study)
    assert best.value == max(trial.value for trial in opened.study.trials if trial.value <= 5)
    outcome = run_trial(opened, begin(opened, 0), lambda trial: 1.0, limits={"latency_ms": 5.0})
    assert "trial.set_user_attr('latency_ms'" in outcome.reason


def test_a_trial_that_fails_keeps_its_reason_in_the_study(home: Path) -> None:
    opened = open_study("reasons")
    run_trial(opened, begin(opened, 7), broken)
    (trial,) = opened.study.trials
    assert trial.state.name == "FAIL"
    assert "IndexError" in trial.user_attrs[REASON]
    assert trial.user_attrs["seed"] == 7


def test_an_interrupt_fails_the_trial_and_goes_on_up(home: Path) -> None:
    opened = open_study("stopped")

    def objective(trial: Any) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(opened, begin(opened, 0), objective)
    assert opened.study.trials[0].state.name == "FAIL"


DRAWS: dict[str, Callable[[], float]] = {
    "python": random.random,
    "numpy": lambda: float(np.random.rand()),  # noqa: NPY002 - what users draw from
    "torch": lambda: float(torch.rand(())),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_seed_decides_the_draws_and_the_users_state_comes_back(draw: Callable[[], float]) -> None:
    with seeded(1):
        pass
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    wanted = [draw(), draw()]
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    found = [draw()]
    with seeded(1):
        one = draw()
    with seeded(1):
        again = draw()
    with seeded(2):
        other = draw()
    found.append(draw())
    assert one == again != other
    assert found == wanted


def test_the_best_of_several_scores_is_on_the_front_and_near_both_ends(home: Path) -> None:
    opened = open_study("front", directions=("maximize", "minimize"))
    for x, y in ((0.0, 0.0), (1.0, 1.0), (0.9, 0.1), (0.5, 0.9)):
        trial = opened.study.ask()
        trial.suggest_float("x", x, x + 1)
        opened.study.tell(trial, (x, y))
    ranked = [trial.number for trial in best_of(opened.study, 4)]
    assert ranked[0] == 2
    assert 3 not in ranked
