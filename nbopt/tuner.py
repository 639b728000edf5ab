"""`nbopt.tune`: search the parameters of an objective, and say what the best are worth over fresh seeds."""

from __future__ import annotations

import hashlib
import inspect
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from nbopt.errors import Interrupted, NbOptError, OptionError
from nbopt.measurement.metrics import METRICS
from nbopt.progress import Progress, ProgressCallback, silent
from nbopt.studies.choosing import Running
from nbopt.studies.ending import Budget
from nbopt.studies.opening import DIRECTIONS, KEY, Opened, Storage, open_study
from nbopt.studies.pool import Pool
from nbopt.studies.repeating import Cut, Repeats, fresh_seeds, joined, repeat_all
from nbopt.studies.running import run_study
from nbopt.studies.standings import FINALIST, FIRST, RANDOM, Candidate, Standing, standings_of
from nbopt.studies.trials import Objective, best_of, feasible
from nbopt.tuning import Standings, Tuning

RIVALS = ("random",)
MOST_FINALISTS, MOST_REPEATS = 20, 100


def tune(
    objective: Objective,
    *,
    trials: int = 60,
    direction: str | Sequence[str] | None = None,
    metric: str | None = None,
    sampler: Any = "auto",
    pruner: Any = "auto",
    start: Mapping[str, Any] | None = None,
    warm: str = "auto",
    study: str | None = None,
    storage: Storage = None,
    seed: int = 0,
    budget: float | None = None,
    max_cost: float | None = None,
    price: float | None = None,
    min_gain: float | None = None,
    limits: Mapping[str, float] | None = None,
    jobs: int = 1,
    trial_timeout: float | None = None,
    finalists: int = 3,
    repeats: int = 5,
    vs: str | None = None,
    progress: ProgressCallback = silent,
) -> Tuning:
    """Search the parameters that an objective asks its trial for, and re-run the best with fresh seeds.

    Each trial is kept before the next begins. A trial that raises, or gives NaN, is a failed trial with its reason.
    Global generators are seeded for each trial; an objective that makes its own takes `trial.user_attrs["seed"]`.

    Args:
        objective: Takes an Optuna trial, returns a score, or a tuple of several.
        trials: Trials at most, those that a resumed study has already among them.
        direction: "maximize", "minimize", or one for each score ("maximize,minimize"); None goes by the metric, and
            is "maximize" where there is none.
        metric: Name of the score; where nbopt knows it, `direction` must agree with it.
        sampler: "auto", "tpe", "gp", "cmaes", "nsga2", "random", "surrogate", "evolution", "policy", or a sampler
            object of Optuna. The last three draw parameters of a few values, and leave the rest to TPE.
        pruner: "auto", "median", "hyperband", "wilcoxon", "none", or a pruner object of Optuna.
        start: Parameters of the first trial: the untuned default, which the result is compared with.
        warm: "auto" tries the best settings of earlier studies of the same objective first, "none" does not, and the
            name of a study takes those of that one.
        study: Name of a study to resume or to make; None makes a new one.
        storage: None for a journal beside the runs, the path of a journal, a URL, or a storage object of Optuna.
        seed: Seed of the sampler; trial n has the seed `seed + n`.
        budget: Seconds for all of it; up to half of them are kept for the finalists.
        max_cost: Money for all of it; needs `price`.
        price: What an hour of this machine costs.
        min_gain: End when the remaining trials are expected to gain less; None takes 0.3% of what the search gained,
            0 never ends early.
        limits: The most that a user attribute of the trial may be, by name: `{"latency_ms": 2}` makes trials that set a
            larger `latency_ms` infeasible.
        jobs: Trials at a time, each in a process of its own.
        trial_timeout: Seconds after which a trial is ended and failed; runs trials in a process of their own.
        finalists: The best settings that are re-run, 0 to 20.
        repeats: Fresh seeds of each, 1 to 100.
        vs: "random" runs random search beside it, with as many trials.
        progress: Told how far the work has come.

    Raises:
        OptionError: An option is out of range, or the direction contradicts the metric or the study.
        StudyError: The objective gives no number, or can't go to another process.
        StoreError: The storage can't be read or written.
        Interrupted: The user interrupted; its `comparison` is the Tuning so far.
        MissingExtra: Optuna is not installed.
    """
    if not callable(objective):
        raise OptionError("a function that takes a trial", f"a {type(objective).__name__}", "def objective(trial): ...")
    _check_counts(finalists, repeats, vs)
    directions = directions_of(direction, metric)
    key = key_of(objective)
    allowed = Budget(trials, budget, max_cost, price, min_gain)
    running = Running(
        allowed,
        sampler=sampler,
        pruner=pruner,
        seed=seed,
        start=start,
        warm=warm,
        limits=dict(limits or {}),
        jobs=jobs,
        timeout=trial_timeout,
        reserve=lambda usual: usual * repeats * (finalists + 1 + (vs is not None)) / jobs if finalists else 0.0,
    )
    opened = open_study(study or _new_name(), directions=directions, storage=storage, key=key)
    notes = [*opened.notes, *_resumed(opened, key, trials)]
    began = time.monotonic()
    result = Tuning(opened.study, metric=metric or "score", budget=allowed, notes=tuple(notes))

    def so_far(**changes: Any) -> Tuning:
        return replace(result, seconds=time.monotonic() - began, **changes)

    try:
        with ExitStack() as stack:
            pool = None
            if running.in_processes:
                pool = stack.enter_context(Pool(objective, opened, jobs=jobs, timeout=trial_timeout))
            ended = run_study(opened, objective, running, progress=progress, pool=pool)
            result = so_far(ended=ended, notes=(*result.notes, *ended.notes))
            if vs is not None:
                beside = open_study(f"{opened.name}, random", directions=directions, storage=storage)
                result = so_far(rival=beside.study)
                alike = replace(running, sampler="random", warm="none", budget=Budget(len(result), min_gain=0))
                run_study(beside, objective, alike, progress=progress, what="random search", pool=pool)
            if finalists:
                candidates = candidates_of(result, finalists, given=start is not None)
                try:
                    rows, told = _stand(objective, candidates, opened, running, repeats, progress, pool)
                except Cut as cut:
                    rows = standings_of(candidates, cut.repeated, result.maximize) if cut.rounds else ()
                    why = "interrupted before all settings were run again with every seed"
                    result = so_far(comparison=Standings(rows), notes=(*result.notes, why))
                    raise
                result = so_far(comparison=Standings(rows), notes=(*result.notes, *told))
    except KeyboardInterrupt as interrupt:
        stopped = Interrupted(f"{len(result)} trials are kept; study={opened.name!r} goes on from there")
        stopped.comparison = so_far()
        raise stopped from interrupt
    except NbOptError as error:
        error.comparison = so_far() if best_of(opened.study) else None
        raise
    return so_far()


def directions_of(direction: str | Sequence[str] | None, metric: str | None) -> tuple[str, ...]:
    """Return the directions of a search, one for each score.

    Raises:
        OptionError: A direction is unknown, or contradicts the metric.
    """
    natural = _direction_of_metric(metric)
    if direction is None:
        return (natural or DIRECTIONS[0],)
    parts = direction.replace(" ", "").split(",") if isinstance(direction, str) else tuple(direction)
    for part in parts:
        if part not in DIRECTIONS:
            raise OptionError(f"a direction among {', '.join(DIRECTIONS)}", repr(part), "direction='maximize'")
    if natural and len(parts) == 1 and parts[0] != natural:
        better = "larger" if natural == "maximize" else "smaller"
        raise OptionError(f"{natural} with {metric}: {better} is better", parts[0], f"--{natural}")
    return tuple(parts)


def _direction_of_metric(metric: str | None) -> str:
    known = METRICS.get(metric or "")
    return "" if known is None else DIRECTIONS[0] if known.greater_is_better else DIRECTIONS[1]


def candidates_of(tuning: Tuning, finalists: int, *, given: bool) -> list[Candidate]:
    """Return what is re-run: what the search began with, the best trials, the best of the random search."""
    trials = tuning.study.get_trials(deepcopy=False)
    first = next((trial for trial in trials if trial.values is not None and trial.state.name == "COMPLETE"), None)
    if first is None:
        return []
    begun = given and first.number == 0
    found = [Candidate("start" if begun else f"trial {first.number} (the first)", FIRST, *_of(first))]
    best = [trial for trial in best_of(tuning.study, finalists + 1) if trial.params != first.params][:finalists]
    found += [Candidate(f"trial {trial.number}", FINALIST, *_of(trial)) for trial in best]
    if tuning.rival is not None:
        found += [Candidate(f"random, trial {t.number}", RANDOM, *_of(t)) for t in best_of(tuning.rival)]
    return found


def _of(trial: Any) -> tuple[int, dict[str, Any], tuple[float, ...], bool]:
    return trial.number, dict(trial.params), tuple(trial.values), feasible(trial)


def _stand(
    objective: Objective,
    candidates: Sequence[Candidate],
    opened: Opened,
    running: Running,
    repeats: int,
    progress: ProgressCallback,
    pool: Pool | None,
) -> tuple[tuple[Standing, ...], tuple[str, ...]]:
    """Re-run candidates; two seeds tell whether seeds change anything, and if not, two are enough.

    Raises:
        Cut: The user interrupted.
    """
    if len(candidates) < 2:
        return (), ("no setting differs from the first, so none was re-run",) if candidates else ()
    seeds = fresh_seeds(running.seed, repeats)
    maximize = [direction.name == "MAXIMIZE" for direction in opened.study.directions]
    settings = [each.params for each in candidates]

    def some(chosen: Sequence[int], before: int) -> list[Repeats]:
        def told(done: int) -> None:
            total = len(settings) * repeats
            progress(Progress("finalists with fresh seeds", before * len(settings) + done, total))

        return repeat_all(objective, settings, chosen, opened=opened, running=running, pool=pool, told=told)

    found = some(seeds[:2], 0)
    alike = len(seeds) > 1 and all(len({outcome.values for outcome in each.outcomes}) == 1 for each in found)
    if alike:
        note = (
            'the objective gives the same with every seed; trial.user_attrs["seed"] is there for one that draws its own'
        )
        return standings_of(candidates, found, maximize), (note,)
    if len(seeds) > 2:
        try:
            found = joined(found, some(seeds[2:], 2))
        except Cut as cut:
            raise Cut(joined(found, cut.repeated)) from cut
    return standings_of(candidates, found, maximize), ()


def key_of(objective: Any) -> str:
    """Return what stands for an objective's text: the same for the same code, whatever lies in its variables."""
    source = getattr(objective, "source", None)
    if source is None:
        try:
            source = inspect.getsource(objective)
        except (OSError, TypeError):
            return ""
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()


def _new_name() -> str:
    return f"tune {time.strftime('%Y-%m-%d %H:%M:%S')} {uuid.uuid4().hex[:4]}"


def _resumed(opened: Opened, key: str, trials: int) -> list[str]:
    if not opened.resumed:
        return []
    ended = sum(trial.state.is_finished() for trial in opened.study.get_trials(deepcopy=False))
    notes = [f"resumed with {ended} trials" + ("; trials=... asks for more" if ended >= trials else "")]
    if key and opened.study.user_attrs.get(KEY, key) != key:
        notes.append("the objective's code is not that of the study's first trials: a new study keeps them apart")
    return notes


def _check_counts(finalists: int, repeats: int, vs: str | None) -> None:
    if not 0 <= finalists <= MOST_FINALISTS:
        raise OptionError(f"finalists between 0 and {MOST_FINALISTS}", f"{finalists}", "finalists=3")
    if not 1 <= repeats <= MOST_REPEATS:
        raise OptionError(f"repeats between 1 and {MOST_REPEATS}", f"{repeats}", "repeats=5")
    if vs is not None and vs not in RIVALS:
        raise OptionError(f"vs among {', '.join(RIVALS)}", repr(vs), "vs='random'")
