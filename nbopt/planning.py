"""What techniques that adjust a training's plan have in common: how long it is, and where its rate starts."""

from __future__ import annotations

from nbopt.draft import Context, Draft
from nbopt.errors import OptionError
from nbopt.rates import lr_range
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
    """Return the draft with a range test on record, and the plan with the rate that it suggests.

    Raises:
        DataError: There is no train data, or its loss is not finite.
    """
    found = lr_range(
        context.workload,
        optimizer=plan.optimizer,
        batch_size=plan.batch_size,
        weight_decay=plan.weight_decay,
        seed=context.seed,
        begin=draft.begin,
        progress=context.progress,
    )
    draft = draft.with_(tested={**draft.tested, "range": found.to_dict()}).noted(found.text)
    return draft, plan.adjusted(learning_rate=found.suggested or plan.learning_rate)
