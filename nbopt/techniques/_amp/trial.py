"""Time some steps of each precision on copies, in turns, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from nbopt.data import kept_randomness
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ModelError
from nbopt.frameworks import Fitting
from nbopt.measurement.blocks import CallableSide
from nbopt.measurement.budget import Budget
from nbopt.measurement.lock import measuring
from nbopt.measurement.paired import timing_of
from nbopt.measurement.turns import run_rounds
from nbopt.progress import Progress
from nbopt.techniques._amp.choice import Tried
from nbopt.training import TrainingPlan
from nbopt.workload import Workload

SECONDS = 1.2
"""Time for all sides where the steps asked for take less: an interval over short steps needs more of them."""
HARMLESS = 1e-9
"""Learning rate of timed steps: many on one batch at the user's could end in NaN, which computes at another speed."""

_known: WeakKeyDictionary[Workload, dict[tuple[object, ...], list[Tried]]] = WeakKeyDictionary()


def tried(draft: Draft, context: Context, precisions: Sequence[str], steps: int) -> list[Tried]:
    """Time steps of the draft's training in float32 and in other precisions; of one untouched model once.

    Args:
        draft: The model and the training to come.
        context: Workload and seed.
        precisions: Halves to try.
        steps: Rounds; in each, every precision makes a step, or as many as fill two milliseconds.

    Raises:
        DataError: The train data can't be used.
        ModelError: The model can't be copied, or has nothing that trains.
    """
    plan = replace(draft.plan, seed=0, learning_rate=HARMLESS, epochs=1, precision="float32")
    key = (plan, tuple(precisions), steps)
    untouched = draft.model is context.workload.model
    known = _known.setdefault(context.workload, {})
    if untouched and key in known:
        return known[key]
    with kept_randomness(context.workload.train):
        found = _timed(draft, context, plan, precisions, steps)
    if untouched and all(each.clear for each in found):  # what a busy machine left open is asked again
        known[key] = found
    return found


def _timed(draft: Draft, context: Context, plan: TrainingPlan, precisions: Sequence[str], steps: int) -> list[Tried]:
    workload = context.workload
    if workload.train is None:
        raise DataError("train data, to train on", "none", "Workload(model, train=(x, y), ...)")
    fitting = Fitting(workload.train, workload.loss)
    context.progress(Progress(f"timing {steps} steps in float32, {', '.join(precisions)}"))
    # float32 first: what is wrong with data or model is then told as such, and not blamed on a precision.
    sides = {"float32": workload.framework.stepping(draft.model, plan, fitting)}
    found = []
    for name in precisions:
        try:
            sides[name] = workload.framework.stepping(draft.model, plan.adjusted(precision=name), fitting)
        except ModelError as error:
            found.append(Tried(name, None, True, f"{name} can't be computed by this model: {error.came}"))
    if len(sides) == 1:
        return found

    def waiting(seconds: float) -> None:
        context.progress(Progress("waiting for another measurement", seconds))

    with measuring(waiting):
        memory = {name: side.memory() for name, side in sides.items()}
        budget = Budget(SECONDS, precise=0.035, enough=steps, least=steps, fair=steps)
        rounds = run_rounds({name: CallableSide(side.step) for name, side in sides.items()}, budget, rng=context.seed)
    for name in list(sides)[1:]:
        timing = timing_of(rounds, "float32", name)
        before, after = memory["float32"], memory[name]
        both = None if before is None or after is None else (before, after)
        clear = timing.verdict != "inconclusive"
        found.append(Tried(name, timing.interval, clear, str(timing), both, sides[name].memory_words))
    return found
