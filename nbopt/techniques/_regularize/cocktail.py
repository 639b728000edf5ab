"""What a search over regularizers may change: one dimension for each, and "off" always among its values.

Cocktails of many regularizers, searched together, beat any one of them (Kadra et al. 2021,
https://arxiv.org/abs/2106.11189).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from nbopt.draft import Context, Draft
from nbopt.errors import DataError, NbOptError
from nbopt.frameworks._mixing import not_mixable
from nbopt.space import Dimension
from nbopt.techniques._regularize.adding import with_dropout, with_norms

OFF = "off"
RATES = (0.1, 0.2, 0.3, 0.5)
DECAYS = (0.001, 0.01, 0.1, 1.0)
SHARES = (0.05, 0.1, 0.2)
MIXES = {"mixup": {"mixup": 0.2}, "cutmix": {"cutmix": 1.0}, "both": {"mixup": 0.2, "cutmix": 1.0}}
AVERAGES = ("ema", "swa")


def dimensions(
    draft: Draft, context: Context, fixed: Collection[str], *, trained: bool
) -> tuple[tuple[Dimension, ...], tuple[str, ...]]:
    """Return what can be searched for this model and data, and notes of what can't.

    Args:
        draft: The candidate so far; dimensions that other techniques gave it are not given twice.
        context: The workload.
        fixed: Names of those that the user has set.
        trained: The model has a function to be kept.
    """
    found: list[Dimension] = []
    notes: list[str] = []
    known = {*fixed, *(dimension.name for dimension in draft.space)}
    if "dropout_rate" in known:
        known.add("dropout")  # tune's word for the rates of the Dropout that a model has

    def add(name: str, values: Collection[Any], apply: Callable[[Draft, Any], Draft], why_not: str) -> None:
        if name in known:
            return
        if why_not:
            notes.append(f"{name} is not searched: {why_not}")
            return
        found.append(Dimension(name, partial(_applied, apply), OFF, choices=(OFF, *values)))

    add(
        "norm",
        ("batchnorm",),
        lambda d, kind: with_norms(d, context, kind, trained=trained),
        _reason(lambda: with_norms(draft, context, "batchnorm", trained=trained)),
    )
    add(
        "dropout",
        RATES,
        lambda d, rate: with_dropout(d, context, rate),
        _reason(lambda: with_dropout(draft, context, RATES[0])),
    )
    add("weight_decay", DECAYS, lambda d, value: _planned(d, weight_decay=value), "")
    add("label_smoothing", SHARES, lambda d, share: _planned(d, label_smoothing=share), unsmoothable(context))
    mixes = [name for name, fields in MIXES.items() if not unmixable(context, **fields)]
    add("mixing", mixes, lambda d, name: _planned(d, **MIXES[name]), "" if mixes else unmixable(context, mixup=1.0))
    averaged = "schedule_free averages already" if draft.plan.schedule == "schedule_free" else ""
    add("averaging", AVERAGES, lambda d, name: _planned(d, averaging=name), averaged)
    return tuple(found), tuple(notes)


def unmixable(context: Context, mixup: float = 0.0, cutmix: float = 0.0) -> str:
    """Return why rows can't be mixed, "" where they can."""
    refused = mixing_refused(context, mixup, cutmix)
    return "" if refused is None else refused.came


def mixing_refused(context: Context, mixup: float, cutmix: float) -> NbOptError | None:
    """Return why rows can't be mixed as an error, None where they can."""
    workload = context.workload
    leaves = [(leaf.dtype, [0 if size is None else size for size in leaf.shape]) for leaf in workload.signature.leaves]
    refused = not_mixable(leaves, mixup, cutmix)
    if refused is None and cutmix and len(workload.outputs_shape) > 1:
        return DataError(
            "one label for each image, for cutmix",
            f"outputs of {' x '.join(map(str, workload.outputs_shape))} a row: the box would have labels of its own",
            "take mixup instead",
        )
    return refused


def unsmoothable(context: Context) -> str:
    """Return why labels can't be smoothed, "" where they can."""
    try:
        context.workload.loss.smoothed(SHARES[0])
    except NbOptError as error:
        return error.came
    return ""


def _applied(apply: Callable[[Draft, Any], Draft], draft: Draft, value: Any) -> Draft:
    return draft if value == OFF else apply(draft, value)


def _planned(draft: Draft, **fields: Any) -> Draft:
    return draft.with_(plan=draft.plan.adjusted(**fields))


def _reason(attempt: Callable[[], Any]) -> str:
    """Return why something can't be done, "" where it can."""
    try:
        attempt()
    except NbOptError as error:
        return error.came
    return ""
