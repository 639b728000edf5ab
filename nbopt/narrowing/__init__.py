"""Take units out of a model with all that holds them: what pruning does, and what a student inherits by.

What goes is decided over NumPy alone; `_torch/` and `_keras/` read a model for it and change it.
"""

from __future__ import annotations

from typing import Any

from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.narrowing.lowering import RECALIBRATED_ROWS, Ranking, lowering_of, some_of_train
from nbopt.narrowing.subjects import Choice, Units

CHECKED_ROWS = 4096
"""Selection rows on which a model must run once units are out of it, at most."""


def narrowed(model: Any, context: Context, share: float) -> tuple[Any, list[str]]:
    """Return a copy of a model without the least important units of each layer, and what was done in words.

    Args:
        model: The framework's model; it stays as it is.
        context: Whose data serves.
        share: Of the channels, heads and hidden units that go, above 0 and below 1.

    Raises:
        ModelError: Nothing in the model can be made narrower, or so small a share of no layer is a unit.
    """
    units, choice = _chosen(model, context, share)
    narrow, notes = recalibrated(checked(units.finished(units.model, choice), context), context)
    return narrow, [*units.notes, f"{units.counts(choice)} were taken out", *notes]


def thinner(model: Any, context: Context, share: float) -> Any:
    """Return a copy of a model without a share of the units of each layer, to be trained anew.

    Raises:
        ModelError: As `narrowed` does.
    """
    units, choice = _chosen(model, context, share)
    return checked(units.finished(units.model, choice), context)


def _chosen(model: Any, context: Context, share: float) -> tuple[Units, Choice]:
    """Return the units of a model, and the choice that leaves a share of each layer's out."""
    lowering = lowering_of(context)
    traced = lowering.trace(model, context.workload.signature.example)
    units = Units(traced, Ranking("magnitude", lowering, context))
    choice = units.choose(units.model, dict.fromkeys(units.sizes, share))
    if not choice.masks:
        largest = max(units.sizes, key=units.sizes.__getitem__)
        raise ModelError(
            "a share of units that is at least one unit of one layer",
            f"{share:.3g} of {units.sizes[largest]} units in {largest}, the layer with the most, which is none",
            "take a larger share out",
        )
    return units, choice


def checked(model: Any, context: Context) -> Any:
    """Return a model that units were taken out of, once it has run on the selection rows, or many of them.

    Raises:
        ModelError: It does not: what belongs together was read off one row, and `forward` goes another way for others.
    """
    try:
        context.outputs(model, CHECKED_ROWS)
    except (RuntimeError, ValueError, IndexError) as error:
        first_line = str(error).partition("\n")[0]
        raise ModelError(
            "layers that belong together in one way for all rows",
            f"{type(error).__name__} on some, with units taken out: {first_line}",
            "torch.where in place of an `if` that depends on values, --exclude its layers, or no --structured",
        ) from error
    return model


def recalibrated(model: Any, context: Context) -> tuple[Any, list[str]]:
    """Return the model with BatchNorm's statistics measured again, where validation does not call that worse."""
    framework = context.workload.framework
    if context.workload.train is None or context.workload.select_rows.targets is None:
        return model, []
    before = framework.state(model)
    score = context.score(model)
    count = lowering_of(context).recalibrate(model, some_of_train(context, RECALIBRATED_ROWS))
    if not count:
        return model, []
    if context.lost(score, context.score(model)) > 0:
        framework.load_state(model, before)
        return model, ["BatchNorm's old statistics were better on validation than new ones, and are kept"]
    return model, [f"BatchNorm's statistics of {count} layers were measured again on train"]
