"""One trial: the objective called with its seed, and whatever comes of it, as an outcome."""

from __future__ import annotations

import linecache
import math
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.data import kept_randomness
from nbopt.studies.extra import load
from nbopt.studies.opening import OWNER, REASON, Opened, owner

SEED = "seed"
"""User attribute of a trial: its seed, for an objective that makes generators of its own."""

Objective = Callable[[Any], Any]
"""Takes a trial, returns its score, or a tuple of several."""

_INCOMPATIBLE = ("CategoricalDistribution does not support dynamic value space", "Cannot set different distribution")


@dataclass(frozen=True)
class Outcome:
    """Say how a trial ended.

    Args:
        state: "complete", "pruned" or "failed".
        values: Its scores, where it is complete.
        reason: Why it failed.
        missing: It failed because the objective gave no number at all.
    """

    state: str
    values: tuple[float, ...] = ()
    reason: str = ""
    missing: bool = False


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python, NumPy and the frameworks that are imported; the state before comes back, TensorFlow's excepted.

    TensorFlow does not tell the state of its global generator, so it stays at the last trial's seed.
    """
    with kept_randomness():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is what an objective draws from
        torch, tensorflow = sys.modules.get("torch"), sys.modules.get("tensorflow")
        if torch is not None:
            torch.manual_seed(seed)
        if tensorflow is not None and hasattr(tensorflow, "random"):
            tensorflow.random.set_seed(seed)
        yield


def evaluate(
    objective: Objective,
    trial: Any,
    *,
    objectives: int = 1,
    seed: int = 0,
    limits: Mapping[str, float] | None = None,
) -> Outcome:
    """Call an objective once; an error in it, NaN, or no number at all is a failed trial with its reason.

    Args:
        objective: Takes the trial.
        trial: A trial of Optuna, or a `FixedTrial`.
        objectives: Scores that it shall give.
        seed: Seed of the global generators while it runs.
        limits: The most that user attributes of the trial may be, by name: above it the trial breaks a constraint.

    Raises:
        KeyboardInterrupt: The user interrupted.
    """
    pruned = load().TrialPruned
    try:
        with seeded(seed):
            result = objective(trial)
    except pruned:
        return Outcome("pruned")
    except Exception as error:  # noqa: BLE001 - whatever a user's objective raises is a trial's failure, with its line
        return Outcome("failed", reason=explain(error, objective))
    outcome = _outcome_of(result, objectives)
    if outcome.state != "complete":
        return outcome
    for name, most in (limits or {}).items():
        figure = trial.user_attrs.get(name)
        number = _number(figure)
        if number is None or math.isnan(number):
            came = "no figure" if figure is None else f"{figure!r:.60}"
            return Outcome("failed", reason=f"the limit on {name} needs trial.set_user_attr({name!r}, ...): {came}")
        trial.set_constraint(name, number - most)
    return outcome


def _outcome_of(result: Any, objectives: int) -> Outcome:
    values = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    if len(values) != objectives:
        many = f"{objectives} scores" if objectives > 1 else "one score"
        return Outcome("failed", reason=f"gave {_shown(result)}, and not {many}", missing=True)
    numbers = []
    for value in values:
        number = _number(value)
        if number is None:
            return Outcome("failed", reason=f"gave {_shown(value)}, which is no number", missing=True)
        numbers.append(number)
    broken = [number for number in numbers if not math.isfinite(number)]
    if broken:
        return Outcome("failed", reason=f"its score was {'NaN' if math.isnan(broken[0]) else broken[0]}")
    return Outcome("complete", tuple(numbers))


def _number(value: Any) -> float | None:
    """Return a score as a number: Python's, an array or tensor of one element; None where it is no number."""
    if value is None or isinstance(value, (str, bytes, bool)):
        return None
    try:
        # NumPy 2.4 makes no float of an array of one element any more; `item` does.
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several elements
        return None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def explain(error: BaseException, objective: Any = None) -> str:
    """Return an error as one line, with the line of the objective that it came from."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and any(sign in text for sign in _INCOMPATIBLE):
        text = f"a parameter's choices or kind changed between trials; give each range a name of its own ({text})"
    return f"{type(error).__name__}: {text}{_place(error, objective)}"[:600]


def _place(error: BaseException, objective: Any) -> str:
    """Return where in the objective it happened: of the frames of its file the innermost."""
    code = getattr(objective, "__code__", None)
    file = getattr(objective, "file", None) or getattr(code, "co_filename", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    if not own:
        return ""
    source = (own[-1].line or linecache.getline(own[-1].filename, own[-1].lineno or 0)).strip()
    return f" (line {own[-1].lineno}{f': {source[:80]}' if source else ''})"


def begin(opened: Opened, seed: int) -> Any:
    """Start the study's next trial and return it, marked with this process and its seed."""
    trial = opened.study.ask()
    trial.set_user_attr(OWNER, owner())
    trial.set_user_attr(SEED, seed + trial.number)
    return trial


def run_trial(
    opened: Opened,
    trial: Any,
    objective: Objective,
    *,
    limits: Mapping[str, float] | None = None,
) -> Outcome:
    """Run a trial that was begun, and tell the study its outcome.

    Raises:
        KeyboardInterrupt: The user interrupted; the trial is marked as failed.
    """
    states = load().trial.TrialState
    objectives = len(opened.study.directions)
    try:
        outcome = evaluate(objective, trial, objectives=objectives, seed=trial.user_attrs[SEED], limits=limits)
    except BaseException:
        opened.fail(trial.number, "interrupted")
        raise
    if outcome.state == "complete":
        opened.study.tell(trial, list(outcome.values))
    elif outcome.state == "pruned":
        opened.study.tell(trial, state=states.PRUNED)
    else:
        trial.set_user_attr(REASON, outcome.reason)
        opened.study.tell(trial, state=states.FAIL)
    return outcome


def feasible(trial: Any) -> bool:
    """Tell whether a finished trial keeps all its constraints."""
    return all(value <= 0 for value in trial.constraints.values())


def best_of(study: Any, most: int = 1) -> list[Any]:
    """Return the best finished trials that keep their constraints, the best first, each setting once.

    Of several objectives: trials of the Pareto front, that nearest to the best of each objective first.
    """
    complete = study.get_trials(deepcopy=False, states=(load().trial.TrialState.COMPLETE,))
    allowed = [trial for trial in complete if feasible(trial)]
    signs = [1 if direction.name == "MAXIMIZE" else -1 for direction in study.directions]
    if len(signs) == 1:
        ranked = sorted(allowed, key=lambda trial: -signs[0] * trial.value)
    else:
        front = {trial.number for trial in study.best_trials}
        ranked = nearest_to_ideal([trial for trial in allowed if trial.number in front], signs)
    once: dict[str, Any] = {}
    for trial in ranked:
        once.setdefault(repr(sorted(trial.params.items())), trial)
    return list(once.values())[:most]


def nearest_to_ideal(trials: Sequence[Any], signs: Sequence[int]) -> list[Any]:
    """Return trials by their distance from the best of every objective, each scaled to the range among them."""
    if not trials:
        return []
    scores = np.asarray([[sign * value for sign, value in zip(signs, t.values, strict=True)] for t in trials])
    span = np.ptp(scores, axis=0)
    away = ((scores.max(axis=0) - scores) / np.where(span > 0, span, 1)) ** 2
    return [trials[at] for at in np.argsort(away.sum(axis=1), kind="stable")]
