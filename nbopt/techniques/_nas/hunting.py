"""The hunt: a model is read, its latency measured by parts, its weights shared, its candidates looked at and built.

It ends where the recipe's one training begins: with the few candidates that are worth it, each built, timed where it
will run and judged with BatchNorm's statistics measured anew. A rival, uniform scaling or a random search, is chosen
from the same table and the same shared weights, at the latency that the choice was measured to take, so that what is
compared is the choosing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nbopt.architectures.exploring import Explored, explored, judged, limits_of, uniform_within
from nbopt.architectures.family import Family
from nbopt.architectures.latency import Latency, fitted, parts_of, to_measure, weighed
from nbopt.architectures.lowering import whole_as_teacher
from nbopt.controllers import Settings
from nbopt.draft import Context, Deployed
from nbopt.errors import ModelError, NbOptError, OptionError
from nbopt.progress import Progress
from nbopt.teaching import Teacher, axis_of
from nbopt.techniques._nas.purse import FINALISTS, LOOKS, RIVAL, SHARED, TABLE, Purse
from nbopt.techniques._nas.relaxing import relaxed_settings
from nbopt.training import TrainingPlan

FEWEST_TIMED = 8
"""Candidates that must be timed before a table is worth anything."""

TOLERANCE = 1.03
"""How much slower than the choice a rival may be measured: two timings of one model differ by as much."""

RIVALS_BUILT = 5
"""Candidates of a random search that are measured before one is taken that is as fast as the choice."""

TRIED_EACH = 2
"""Candidates that are measured for each finalist that is to be within a latency, once one of them is."""

RELAXED = "relaxed"
"""Word of the controller that goes by gradients; see `nbopt.controllers.relaxed`."""


@dataclass(frozen=True)
class Finalist:
    """Hold a candidate that was built.

    Args:
        setting: Its places.
        model: With its weights out of the shared ones, and statistics of its own.
        quality: On the selection rows, before any training of its own.
        there: Size and latency where it will run.
    """

    setting: tuple[int, ...]
    model: Any = field(repr=False)
    quality: float
    there: Deployed


@dataclass
class Hunt:
    """Search the candidates of one model.

    Args:
        family: The model and its candidates; its weights are trained in place.
        plan: The shared training.
        purse: What all of it may cost.
        controller: Word of `nbopt.studies.asking.proposer_of`, or `RELAXED`.
        trials: Candidates that are looked at.
        timed: Candidates that are timed for the table.
        finalists: Candidates that are built at most.
        notes: What must be said, in order.
        keep: Told of each thing that took long; None where nothing is kept.
    """

    family: Family
    plan: TrainingPlan
    purse: Purse
    controller: str = "surrogate"
    trials: int = 60
    timed: int = 30
    finalists: int = 3
    notes: list[str] = field(default_factory=list)
    keep: Callable[[Hunt], None] | None = None
    latency: Latency | None = None
    seen: Explored | None = None
    timings: dict[tuple[int, ...], float] = field(default_factory=dict)
    shared: bool = False
    looks_until: float = LOOKS
    """Share of the budget by which candidates have been looked at."""

    @property
    def context(self) -> Context:
        """Return the workload and how it is measured."""
        return self.family.context

    def chosen(self) -> list[Finalist]:
        """Return the candidates that are worth a training, the fastest first.

        Raises:
            OptionError: No candidate is as fast as asked for, or the budget is too small for one.
            ModelError: No candidate runs.
        """
        latency = self.timed_table()
        self.share()
        whole = float(latency.table.at(np.asarray([self.family.space.grid.start]))[0])
        limits = limits_of(latency, whole, self.context.max_latency, self.finalists)
        found = self.looked(latency, limits)
        most = self.context.max_latency
        if most is None:
            picked = {look.setting: look for limit in limits if (look := found.best_within(limit)) is not None}
            built = self.built(sorted(picked, key=lambda setting: picked[setting].latency_ms)[: self.finalists])
        else:
            built = self.within(found, most)
        if not built:
            reasons = [look.reason for look in found.looks if look.reason] or [found.ended]
            raise ModelError("a candidate that runs", reasons[0] or "none within the latency", "nas --change width")
        return self.faster(built)

    def within(self, found: Explored, limit_ms: float) -> list[Finalist]:
        """Return the best candidates that are measured to be within a latency, the fastest first; [] where none runs.

        The best of those that the table takes to be within it lie at its edge, and some of them beyond.

        Args:
            found: What was looked at.
            limit_ms: The user's limit.

        Raises:
            OptionError: None of those that run is.
        """
        kept: list[Finalist] = []
        taken: list[float] = []
        for look in found.ranked(limit_ms):
            if len(kept) == self.finalists or (kept and len(taken) >= TRIED_EACH * self.finalists):
                break
            if kept and not self.purse.left(FINALISTS):
                self.notes.append(f"fewer finalists than {self.finalists}: {self.purse.note}")
                break
            for each in self.built([look.setting]):
                taken.append(each.there.latency_ms)
                kept += [each] if each.there.latency_ms <= limit_ms else []
        if taken and not kept:
            raise OptionError(
                f"a candidate within {limit_ms:.3g} ms",
                f"{len(taken)} that the table takes for that, of which the fastest was measured at {min(taken):.3g} ms",
                "a higher --max-latency, or more --timed candidates for the table",
            )
        if len(kept) < len(taken):
            self.notes.append(f"{len(taken) - len(kept)} of {len(taken)} candidates were measured above the limit")
        return sorted(kept, key=lambda each: each.there.latency_ms)

    def faster(self, built: list[Finalist]) -> list[Finalist]:
        """Return those that were measured to be faster than the whole model; all, with a note, where none was."""
        whole = self.timings.get(tuple(self.family.space.grid.start or ()))
        found = [each for each in built if whole is None or each.there.latency_ms < whole]
        if whole is None or len(found) == len(built):
            return built
        if not found:
            self.notes.append(f"no finalist was measured to be faster than the {whole:.3g} ms of the model as it is")
            return built
        self.notes.append(f"{len(built) - len(found)} finalists were no faster than the {whole:.3g} ms of the model")
        return found

    @property
    def teacher(self) -> Teacher:
        """Return what the whole model is to its candidates while they learn together."""
        workload = self.context.workload
        axis = axis_of(workload.output, workload.outputs_shape, workload.select_rows.targets)
        return whole_as_teacher(workload.output, axis)

    @property
    def interrupted(self) -> bool:
        """Tell whether the user interrupted it, and it holds the best so far."""
        return self.seen is not None and self.seen.interrupted

    def there(self, model: Any, setting: Sequence[int]) -> Deployed:
        """Return what a candidate is where it will run; where nothing is measured, what the table says of it."""
        if self.context.deploy is not None:
            return self.context.deploy(model)
        return Deployed("", 0, float(self.timed_table().table.at(np.asarray([setting], np.int64))[0]))

    def timed_table(self) -> Latency:
        """Return the latency table, measured where candidates will run."""
        context, space = self.context, self.family.space
        if self.latency is not None:
            return self.latency
        if context.deploy is None:
            if context.max_latency is not None:
                raise OptionError("a run that measures, for --max-latency", "a technique applied by itself")
            self.latency = weighed(self.family.factors)
            self.notes.append("nothing is timed here: candidates are compared by how many weights they have")
            return self.latency
        settings = to_measure(space, self.timed, context.rng())
        failed: list[str] = []
        began, usual, new = time.monotonic(), 0.0, 0
        for number, setting in enumerate(settings):
            places = tuple(setting.tolist())
            if places in self.timings:
                continue
            # A table of too few is worth nothing: those few may go beyond its share.
            share = TABLE if len(self.timings) >= FEWEST_TIMED else SHARED
            if self.purse.left(share) <= usual:
                break
            context.progress(Progress("timing candidates", number, len(settings)))
            try:
                self.timings[places] = context.deploy(self.family.built(setting)).latency_ms
                self._kept()
            except NbOptError as error:
                failed.append(error.one_line)
            new += 1
            usual = (time.monotonic() - began) / new
        if len(self.timings) < min(FEWEST_TIMED, len(settings)):
            came = failed[0] if failed else f"{self.purse.note}, {usual:.1f} s for each"
            raise OptionError(f"a budget for {FEWEST_TIMED} candidates that are exported and timed", came)
        if failed:
            self.notes.append(f"{len(failed)} of {len(settings)} candidates for the table failed: {failed[0]}")
        timed = np.asarray(list(self.timings), np.int64), np.asarray(list(self.timings.values()))
        self.latency = fitted(parts_of(self.family.factors), *timed)
        self.notes.append(self.latency.note)
        return self.latency

    def share(self) -> None:
        """Let candidates learn together, in place, within the budget's share; without train data they don't."""
        context, workload = self.context, self.context.workload
        if self.shared:
            return
        self.shared = True
        if workload.train is None or not self.plan.epochs:
            self.notes.append("candidates did not learn together: they are judged by the model's weights as they are")
            return
        plan = self.plan.adjusted(
            seed=context.seed, keep_best=False, max_seconds=self.purse.seconds_for(SHARED), precision="float32"
        )
        fitting = context.fitting(teach=self.family.lessons(plan, self.teacher), score=None, valid=None)
        self.shared = False  # an interrupt leaves it as far as it came, and it goes on from there
        record = workload.framework.fit(self.family.model, plan, fitting)
        self.shared = True
        self._kept()
        ended = f", {record.stopped}" if record.stopped else ""
        self.notes.append(f"candidates learned together for {record.epochs} epochs{ended}")

    def looked(self, latency: Latency, limits: Sequence[float]) -> Explored:
        """Return the candidates that were looked at."""
        context, times = self.context, [0.0]
        greater = context.lost(1.0, 0.0) > 0

        def judge(setting: Settings) -> float:
            began = time.monotonic()
            context.progress(Progress("looking at candidates", len(times) - 1, self.trials))
            quality = self.family.judged(setting)[1]
            times.append(time.monotonic() - began)
            return quality if greater else -quality

        if self.controller == RELAXED:
            wanted = relaxed_settings(self.family, self.plan, latency, limits, self.trials, self.purse)
            self.seen = judged(wanted, judge, latency, going=self.purse.going(self.looks_until))
            self.notes.append(f"{len(self.seen.looks)} candidates were looked at that gradients made likely")
        else:
            self.seen = explored(
                self.family.space,
                judge,
                latency,
                limits,
                word=self.controller,
                trials=self.trials,
                seed=context.seed,
                going=self.purse.going(self.looks_until, lambda: float(np.median(times))),
                known=self.seen,
            )
        self._kept()
        if self.seen.ended:
            self.notes.append(self.seen.ended)
        return self.seen

    def _kept(self) -> None:
        if self.keep is not None:
            self.keep(self)

    def built(self, settings: Sequence[Sequence[int]]) -> list[Finalist]:
        """Return candidates built and timed, the fastest first; what fails is noted. The first is always built."""
        found: list[Finalist] = []
        for setting in settings:
            if found and not self.purse.left(FINALISTS):
                self.notes.append(f"{len(settings) - len(found)} finalists were left out: {self.purse.note}")
                break
            try:
                model, quality = self.family.judged(setting)
                found.append(Finalist(tuple(setting), model, quality, self.there(model, setting)))
            except NbOptError as error:
                self.notes.append(f"a finalist failed: {error.one_line}")
        return sorted(found, key=lambda each: each.there.latency_ms)

    def uniform(self, limit_ms: float) -> Finalist:
        """Return the widest model scaled alike throughout that is measured to be as fast.

        Raises:
            ModelError: None is, or it does not run.
        """
        self.share()
        taken: list[float] = []

        def measured(setting: Settings) -> float:
            taken.append(self.there(self.family.built(setting), setting.tolist()).latency_ms)
            return taken[-1]

        within = uniform_within(self.family.space, measured, limit_ms * TOLERANCE)
        if within is None:
            narrowest = f"the narrowest takes {min(taken):.3g} ms" if taken else "no width in it can change"
            raise self._none("scaled alike throughout", limit_ms, narrowest)
        found = self.built([within[0].tolist()])
        if not found:
            raise self._none("scaled alike throughout", limit_ms, self.notes[-1])
        return found[0]

    def at_random(self, limit_ms: float) -> Finalist:
        """Return the best of as many candidates at random, as fast by the table and as measured.

        Raises:
            ModelError: None is.
            KeyboardInterrupt: The user interrupted.
        """
        latency = self.timed_table()
        self.share()
        seen = replace(self, controller="chance", seen=None, looks_until=RIVAL, keep=None)
        found = seen.looked(latency, (limit_ms,))
        if found.interrupted:
            raise KeyboardInterrupt  # one of fewer looks would be no fair rival
        taken = []
        for look in found.ranked(limit_ms)[:RIVALS_BUILT]:
            finalist = next(iter(self.built([look.setting])), None)
            if finalist is not None and finalist.there.latency_ms <= limit_ms * TOLERANCE:
                return finalist
            taken += [] if finalist is None else [finalist.there.latency_ms]
        fastest = f"the fastest of {len(taken)} takes {min(taken):.3g} ms" if taken else "none is as fast by the table"
        raise self._none("drawn at random", limit_ms, fastest)

    def _none(self, how: str, limit_ms: float, came: str) -> ModelError:
        # Beside a search the limit is what that reached: nothing that the user has set.
        todo = "" if self.context.max_latency is None else "a higher --max-latency"
        return ModelError(f"a candidate {how} within {limit_ms:.3g} ms", came, todo)
