"""A space of the user's own: a function, or a cell's body, builds a model from `trial`, and each is trained.

An ordinary Optuna study beside the runs, so that what was cut off goes on. Candidates share nothing: each is checked,
exported and timed before it is trained, and what is slower than asked for is not trained at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nbopt.draft import Context
from nbopt.errors import DataError, ModelError, NbOptError, OptionError, StudyError
from nbopt.measurement.intervals import Interval
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.quality import judge
from nbopt.progress import Progress, silent
from nbopt.studies import Budget, Opened, Running, best_of, journal_file, open_study, run_study, seeded
from nbopt.studies.extra import load
from nbopt.studies.opening import REASON
from nbopt.studies.repeating import fresh_seeds
from nbopt.studies.trials import SEED
from nbopt.techniques._nas.hunting import TOLERANCE
from nbopt.techniques._nas.purse import BUILT, FINALISTS, RIVAL, Purse
from nbopt.techniques._nas.reading import code_of
from nbopt.training import TrainingPlan

LATENCY, SECONDS, EPOCHS = "latency_ms", "seconds", "epochs"
"""User attributes of a trial."""

SETTLED = "settled"
"""User attribute of a study: how many trials it had when its best were trained again. An interrupt may cut that off."""


@dataclass(frozen=True)
class Picked:
    """Hold the best of the candidates.

    Args:
        again: Builds it anew, not trained.
        latency_ms: Where it will run; None where nothing is measured.
        table: What was tried, as plain data of `Run.search`.
        notes: What must be said.
        interrupted: The user interrupted, and this is the best so far.
    """

    again: Callable[[], Any]
    latency_ms: float | None
    table: dict[str, Any]
    notes: tuple[str, ...]
    interrupted: bool = False


@dataclass
class Building:
    """Search among the models that a function builds.

    Args:
        build: Takes a trial, returns an untrained model.
        plan: The training of each.
        purse: What all of it may cost.
        context: The workload.
        controller: What proposes: a sampler's word.
        trials: Candidates that are trained at most.
        finalists: The best that are trained again with a fresh seed before one is chosen.
        limit_ms: The longest latency; None for no limit.
        rival: It stands beside a search, whose budget is partly spent.
    """

    build: Callable[[Any], Any]
    plan: TrainingPlan
    purse: Purse
    context: Context
    controller: str = "surrogate"
    trials: int = 20
    finalists: int = 4
    limit_ms: float | None = None
    rival: bool = False
    notes: list[str] = field(default_factory=list)

    def picked(self) -> Picked:
        """Return the best candidate within the latency.

        Raises:
            DataError: There is no train data, or valid has no labels.
            ModelError: No candidate could be built, exported and trained.
            OptionError: None is as fast as asked for.
        """
        context, workload = self.context, self.context.workload
        if workload.train is None:
            raise DataError("train data, on which candidates are trained", "none", "--train train_dl")
        if workload.select_rows.targets is None:
            raise DataError("labels in valid, to choose a candidate by", "rows without", "give valid=(x, y)")
        greater = metric_of(workload.metric, output=workload.output).greater_is_better
        opened = self._opened("maximize" if greater else "minimize")
        share = RIVAL if self.rival else BUILT
        running = Running(
            Budget(self.trials, None if self.purse.endless else max(1e-3, self.purse.left(share)), min_gain=0),
            sampler=self.controller,
            pruner="none",
            seed=context.seed,
            warm="none",
        )
        interrupted = ended = ""
        try:
            ended = run_study(opened, self, running, progress=context.progress, what="candidates").reason
        except StudyError as error:
            raise ModelError(
                "a body that builds a model from `trial` which takes the workload's inputs and trains",
                error.came,
                "its last expression is the untrained model",
            ) from error
        except KeyboardInterrupt:
            if not best_of(opened.study):
                raise  # the study is kept, and goes on from there
            interrupted = f"interrupted after {opened.ended} of {self.trials} candidates: the best so far"
        best = best_of(opened.study, 1 if interrupted else self.finalists)
        scores: list[float | None] = []
        at = 0
        try:
            if len(best) > 1:
                scores, at = self._again(best, greater=greater)
        except KeyboardInterrupt:
            interrupted = "interrupted while the best were trained again: the best by its first training"
        if not interrupted:
            opened.study.set_user_attr(SETTLED, opened.ended)
        if not best:
            raise self._none(opened)
        said = [*opened.notes, ended, interrupted, self._told(opened, best[at]), _failures(opened)]
        self.notes += filter(None, said)
        params = dict(best[at].params)

        def again() -> Any:
            with seeded(context.seed):
                return self.made(load().trial.FixedTrial(params))

        table = self._table(opened, best, scores, best[at], ended or interrupted)
        return Picked(again, best[at].user_attrs.get(LATENCY), table, tuple(self.notes), bool(interrupted))

    @property
    def file(self) -> str | None:
        """Return where the body or function stands: an error of a candidate is told with the line there."""
        own = getattr(self.build, "file", None)
        return own or getattr(getattr(self.build, "__code__", None), "co_filename", None)

    def __call__(self, trial: Any) -> float:
        """Return the quality of one candidate after a training; an error of it is a failed trial with its reason."""
        model = self.made(trial)
        if self.context.deploy is not None:
            taken = self.context.deploy(model).latency_ms
            trial.set_user_attr(LATENCY, taken)
            if self.limit_ms is not None and taken > self.limit_ms * (TOLERANCE if self.rival else 1.0):
                trial.set_user_attr(REASON, f"{taken:.3g} ms, slower than {self.limit_ms:.3g} ms: not trained")
                raise load().TrialPruned
        elif self.limit_ms is not None:
            raise OptionError("a run that measures, for --max-latency", "a technique applied by itself")
        most = self.purse.seconds_for(RIVAL if self.rival else FINALISTS)
        plan = self.plan.adjusted(seed=trial.user_attrs[SEED], max_seconds=most)
        record = (trained := self._quiet().trained(model, plan)).record
        trial.set_user_attr(SECONDS, record.seconds)
        trial.set_user_attr(EPOCHS, record.epochs)
        return record.scores[record.kept_epoch] if record.scores else self.context.score(trained.model)

    def made(self, trial: Any) -> Any:
        """Return the model that the body builds for a trial.

        Raises:
            ModelError: It is no model of the framework, does not run, or gives outputs of another shape.
        """
        workload, model = self.context.workload, self.build(trial)
        framework = workload.framework
        if not framework.owns(model):
            raise ModelError(f"a model of {framework.name}, as the bound one", f"a {type(model).__name__}")
        if model is workload.model:
            raise ModelError("an untrained model, built anew for each trial", "the bound model itself")
        rows, wanted = self.context.two_rows, (2, *workload.outputs_shape)
        try:
            came = framework.predict(model, rows).shape
        except Exception as error:
            # Whatever the user's code raises, or TensorFlow, whose errors are no RuntimeError.
            first = (str(error).splitlines() or [""])[0]
            raise ModelError(
                "a candidate that takes the inputs of the bound model", f"{type(error).__name__}: {first}"
            ) from error
        if tuple(came) != wanted:
            raise ModelError(f"a candidate with outputs of shape {wanted}", f"shape {tuple(came)}")
        return model

    def _opened(self, direction: str) -> Opened:
        """Open the study to go on with; one that has come to its end stays as it is, and the next is new."""
        workload, words = self.context.workload, "nas, random" if self.controller == "random" else "nas"
        digest = hashlib.blake2b(
            f"{code_of(self.build)} {self.plan} {self.limit_ms} {workload.training_digest}".encode(), digest_size=4
        )
        name = f"{workload.name}: {words} {digest.hexdigest()}, seed {self.context.seed}, {workload.digest[:8]}"
        number = 1
        while True:
            opened = open_study(
                name if number == 1 else f"{name} #{number}",
                directions=(direction,),
                storage=journal_file(self.context.home),
            )
            if opened.study.user_attrs.get(SETTLED, 0) < self.trials:
                return opened
            number += 1

    def _again(self, best: Sequence[Any], *, greater: bool) -> tuple[list[float | None], int]:
        """Train the best again with a fresh seed; return what that gave, and the place of the surest of them."""
        context = self.context
        rows, metric = context.workload.select_rows, metric_of(context.workload.metric, output=context.workload.output)
        (seed,) = fresh_seeds(context.seed, 1)
        share = RIVAL if self.rival else FINALISTS
        found: list[Interval | None] = []
        for number, each in enumerate(best):
            context.progress(Progress("training the best again", number, len(best)))
            if number and not self.purse.left(share):
                self.notes.append(f"{len(best) - number} of the best were not trained again: {self.purse.note}")
                break
            try:
                with seeded(seed):
                    model = self.made(load().trial.FixedTrial(each.params))
                    plan = self.plan.adjusted(seed=seed, max_seconds=self.purse.seconds_for(share, len(best) - number))
                    model = self._quiet().trained(model, plan).model
                quality = judge(metric, context.outputs(model), rows.targets, rows.weight, None, seed=seed)
                found.append(quality.value)
            except NbOptError as error:
                self.notes.append(f"trial {each.number} failed when it was trained again: {error.one_line}")
                found.append(None)
        surest = [-np.inf if each is None else each.low if greater else -each.high for each in found]
        return [None if each is None else float(each.value) for each in found], int(np.argmax(surest))

    def _quiet(self) -> Context:
        return replace(self.context, progress=silent)

    def _none(self, opened: Opened) -> NbOptError:
        trials = opened.study.get_trials(deepcopy=False)
        taken = [trial.user_attrs[LATENCY] for trial in trials if LATENCY in trial.user_attrs]
        if taken and self.limit_ms is not None and min(taken) > self.limit_ms:
            return OptionError(
                f"a candidate within {self.limit_ms:.3g} ms",
                f"{len(taken)} candidates, the fastest of {min(taken):.3g} ms",
                "a body that builds smaller ones too, or a higher --max-latency",
            )
        reasons = [str(trial.user_attrs[REASON]) for trial in trials if REASON in trial.user_attrs]
        return ModelError("a candidate that trains", reasons[0] if reasons else "none", "a larger --budget")

    def _told(self, opened: Opened, chosen: Any) -> str:
        values = ", ".join(f"{name} {value}" for name, value in chosen.params.items())
        taken = chosen.user_attrs.get(LATENCY)
        where = "" if taken is None else f", {taken:.3g} ms"
        return f"{opened.ended} candidates of the body; chosen: {values or 'the only one'}{where}"

    def _table(
        self, opened: Opened, best: Sequence[Any], scores: Sequence[float | None], chosen: Any, ended: str
    ) -> dict[str, Any]:
        workload = self.context.workload
        metric = metric_of(workload.metric, output=workload.output)
        trials = [trial for trial in opened.study.get_trials(deepcopy=False) if trial.state.is_finished()]
        states = {"COMPLETE": "complete", "PRUNED": "pruned"}
        return {
            "what": f"{metric.name} on {workload.select.name}",
            "greater": metric.greater_is_better,
            "space": sorted({name for trial in trials for name in trial.params}),
            "study": opened.name,
            "trials": [
                {
                    "number": trial.number,
                    "values": _values(trial),
                    "score": trial.value if trial.state.name == "COMPLETE" else None,
                    "state": states.get(trial.state.name, "failed"),
                    "epochs": int(trial.user_attrs.get(EPOCHS, 0)),
                    "seconds": round(float(trial.user_attrs.get(SECONDS, 0.0)), 3),
                    "reason": str(trial.user_attrs.get(REASON, "")),
                }
                for trial in trials[:200]
            ],
            "left_out": max(0, len(trials) - 200),
            "finalists": [_final(trial, [score]) for trial, score in zip(best, scores, strict=False)],
            "chosen": _final(chosen, []),
            "ended": ended,
        }


def _values(trial: Any) -> dict[str, Any]:
    taken = trial.user_attrs.get(LATENCY)
    plain = {name: v if isinstance(v, (str, int, float)) else str(v) for name, v in trial.params.items()}
    return plain if taken is None else {"latency": float(taken), **plain}


def _final(trial: Any, scores: Sequence[float | None]) -> dict[str, Any]:
    mean = scores[0] if scores else None
    return {
        "kind": "finalist",
        "number": trial.number,
        "values": _values(trial),
        "found": trial.value,
        "scores": list(scores),
        "mean": mean,
    }


def _failures(opened: Opened) -> str:
    """Return in words which candidates failed and why, each reason once; "" where none did."""
    trials = [trial for trial in opened.study.get_trials(deepcopy=False) if trial.state.name == "FAIL"]
    by_reason: dict[str, list[int]] = {}
    for trial in trials:
        by_reason.setdefault(str(trial.user_attrs.get(REASON, "cut off")), []).append(trial.number)
    reasons = [
        f"{', '.join(map(str, numbers[:3]))}{', ...' if numbers[3:] else ''}: {reason}"
        for reason, numbers in list(by_reason.items())[:3]
    ]
    more = f"; {len(by_reason) - 3} more reasons" if len(by_reason) > 3 else ""
    of = "1 candidate" if len(trials) == 1 else f"{len(trials)} candidates"
    return f"{of} failed ({'; '.join(reasons)}{more})" if trials else ""
