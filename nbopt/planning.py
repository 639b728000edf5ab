"""What techniques that adjust a training's plan have in common: how long it is, and where its rate starts."""

from __future__ import annotations

from nbopt.draft import Context, Draft
from nbopt.errors import OptionError
from nbopt.rates import range_test
from nbopt.training import TrainingPlan

EPOCHS = 5
"""Passes over train where no step of a recipe says how many."""


def lengthened(plan: TrainingPlan, epochs: int | None, learning_rate: float | None) -> TrainingPlan:
    """Return a plan that is as long as the longest that a step asks for.

    Args:
        plan: The recipe's plan so far.
        epochs: Passes that this step asks for, None where it leaves that to the others.
        learning_rate: Likewise its rate.
    """
    return plan.adjusted(
        epochs=max(plan.epochs, epochs or 0) or EPOCHS, learning_rate=learning_rate or plan.learning_rate
    )


def fine_tuning(draft: Draft, epochs: int, learning_rate: float | None) -> TrainingPlan:
    """Return the draft's plan with a rate that falls to 0 along a cosine, where no step was told another schedule.

    Args:
        draft: The recipe so far.
        epochs: As of `lengthened`.
        learning_rate: Likewise.
    """
    plan = lengthened(draft.plan, epochs, learning_rate)
    return plan if "schedule" in draft.settled else plan.adjusted(schedule="cosine")


def refuse_quantized(draft: Draft, word: str, why: str) -> None:
    """Refuse a step that would undo what was quantized before it.

    Args:
        draft: The recipe so far.
        word: The step.
        why: What it would do to that.

    Raises:
        OptionError: Something was quantized.
    """
    if draft.dtype:
        raise OptionError(f"{word} before quantize", f"{word} after it: {why}", f"{word} | quantize")


def check_range_test(range_test: bool, learning_rate: float | None) -> None:
    """Refuse a rate together with a test that finds one.

    Raises:
        OptionError: Both are asked for.
    """
    if range_test and learning_rate is not None:
        raise OptionError("a --learning-rate, or --range-test to find one", "both", "leave one out")


def range_tested(draft: Draft, plan: TrainingPlan, context: Context) -> tuple[Draft, TrainingPlan]:
    """Return the draft with a range test of its model on record, and the plan with the rate that it suggests.

    Raises:
        DataError: There is no train data, or its loss is not finite.
    """
    found = range_test(
        context.workload,
        draft.model,
        plan.adjusted(seed=context.seed),
        begin=draft.begin,
        hold=draft.hold,
        progress=context.progress,
    )
    draft = draft.with_(tested={**draft.tested, "range": found.to_dict()}).noted(found.text)
    return draft, plan.adjusted(learning_rate=found.suggested or plan.learning_rate)
