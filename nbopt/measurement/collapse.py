"""Outputs that can no longer be trusted: how that is seen, what probably did it, and what to try next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nbopt.batches import leaves
from nbopt.frameworks import OutputKind
from nbopt.large import slices_of
from nbopt.measurement.intervals import Interval
from nbopt.measurement.metrics import Metric
from nbopt.measurement.predictions import Scored
from nbopt.measurement.scores import Floats, not_finite

if TYPE_CHECKING:
    from nbopt.workload import Workload

COLLAPSED = "collapsed"
"""First word of the verdict of a run whose outputs can't be trusted: it is never the best, nor within a limit."""

FLAT = 1e-6
"""Share of the baseline's spread below which outputs are one value and rounding noise."""

FEWEST = 3
"""Rows that the baseline must have put into other classes before one class alone is a finding."""

WIDE = 50.0
"""Ratio of a channel's range to the median channel's beyond which 8 bits leave the others five levels or fewer."""

FLOAT16_MAX = 65_504.0

Kind = Literal["not finite", "constant", "one class", "chance"]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Symptom:
    """Hold what is wrong with outputs.

    Args:
        kind: NaN or infinity, the same output for every row, one class for every row, quality of a constant guess.
        what: The same in words, with figures; no semicolon.
        peak: Largest absolute output of the untouched model.
    """

    kind: Kind
    what: str
    peak: float = 0.0


@dataclass(frozen=True)
class Range:
    """Hold how far one channel's range exceeds the median channel's."""

    where: str
    ratio: float
    is_input: bool = False


@dataclass(frozen=True)
class Done:
    """Hold what was done to the model, in plain data.

    Args:
        recipe: The recipe's text and its label: "quantize --no-per-channel quantize int8 static".
        runtime: The runtime's word.
        trained: There was a training.
        peak_weight: Largest absolute weight of the untouched model.
        widest: The channel whose range exceeds the others' most, of weights and inputs; None where not known.
        recurrent: The model has recurrent layers.
    """

    recipe: str
    runtime: str = ""
    trained: bool = False
    peak_weight: float = 0.0
    widest: Range | None = None
    recurrent: bool = False

    def has(self, *words: str) -> bool:
        """Tell whether all the words stand in the recipe."""
        return set(words) <= set(self.recipe.split())


@dataclass(frozen=True)
class Collapse:
    """Hold what is wrong with a run's outputs, the likely cause, and the next thing to try."""

    what: str
    cause: str
    do: str

    @property
    def text(self) -> str:
        """Return all three in one line; what stands before the first semicolon is the verdict."""
        return f"{COLLAPSED}: {self.what}; likely cause: {self.cause}; {self.do}"


def find_not_finite(raw: Array, kind: OutputKind, baseline: Array) -> Symptom | None:
    """Return how many rows have NaN or infinity in their output, None where none has."""
    bad = not_finite(raw, kind)
    if not bad.any():
        return None
    count = int(bad.sum())
    rows = f"{count:,} of {len(bad):,} rows" if count < len(bad) else f"all {count:,} rows"
    return Symptom("not finite", f"NaN or infinity in {rows}", _peak(baseline))


def find_constant(raw: Array, baseline: Array) -> Symptom | None:
    """Return that every row gets the same output, None where rows differ or the baseline's do not either."""
    if len(raw) < 2:
        return None
    spread, before = _spread(raw), _spread(baseline)
    if before == 0 or spread > FLAT * before:
        return None
    return Symptom("constant", "every row gets the same output", _peak(baseline))


def find_one_class(now: Array, before: Array, baseline: Array) -> Symptom | None:
    """Return that every row is predicted alike, None where rows differ or the baseline's hardly do.

    Args:
        now: Predicted class of each row, or a 0 or 1 for each label of it.
        before: The untouched model's.
        baseline: The untouched model's outputs.
    """
    rows = now.reshape(len(now), -1) if now.ndim > 1 else now[:, None]
    others = before.reshape(len(before), -1) if before.ndim > 1 else before[:, None]
    if not len(rows) or (rows != rows[0]).any() or (others != rows[0]).any(axis=1).sum() < FEWEST:
        return None
    if rows.shape[1] == 1 or (rows == rows[0, 0]).all():
        return Symptom("one class", f"every row is predicted as class {rows[0, 0]}", _peak(baseline))
    return Symptom("one class", "every row is predicted with the same labels", _peak(baseline))


def find_chance(
    metric: Metric, scored: Scored, value: Interval, difference: Interval, before: Interval, baseline: Array
) -> Symptom | None:
    """Return that quality is no better than a constant guess on these labels, None where it is.

    Args:
        metric: What quality is.
        scored: Labels, with row weights.
        value: Quality with its interval.
        difference: From the untouched model's quality.
        before: The untouched model's quality: where a constant guess is as good, nothing collapsed.
        baseline: The untouched model's outputs.
    """
    lost = difference.high < 0 if metric.greater_is_better else difference.low > 0
    guess = chance_of(metric, scored) if lost else None
    if guess is None:
        return None
    fell = value.low <= guess < before.low if metric.greater_is_better else value.high >= guess > before.high
    if not fell:
        return None
    numbers = [f"{100 * x:.1f}%" if metric.bounded else f"{x:.4g}" for x in (value.value, guess)]
    name = metric.name.replace("_", " ")
    what = f"{name} {numbers[0]} is no better than one guess for every row ({numbers[1]})"
    return Symptom("chance", what, _peak(baseline))


def chance_of(metric: Metric, scored: Scored) -> float | None:
    """Return what the best constant guess scores on these labels; None for a user's function.

    The majority's share for accuracy, 0.5 for auc, the positives' share for average_precision, the entropy of the
    labels for log_loss, 0 for r2, the mean or the median for rmse and mae, all positive for f1.
    """
    if metric.formula is None or not len(scored.y):
        return None
    weight = np.ones(len(scored.y)) if scored.weight is None else scored.weight
    values = [metric.formula(scored.y, guess, weight).value for guess in _guesses(scored, weight)]
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return None
    return max(known) if metric.greater_is_better else min(known)


def _guesses(scored: Scored, weight: Floats) -> Iterator[Floats]:
    """Yield scores that are the same for every row: shares of the labels, all positive; mean, median of values."""
    y, scores = scored.y, scored.scores
    if y.dtype.kind == "f":
        order = np.argsort(y, axis=0)
        middle = (np.cumsum(weight[order], axis=0) >= weight.sum() / 2).argmax(axis=0)
        median = np.take_along_axis(np.take_along_axis(y, order, 0), np.expand_dims(middle, 0), 0)[0]
        for value in (np.average(y, axis=0, weights=weight), median):
            yield np.broadcast_to(value, y.shape).astype(np.float64)
    elif scores.ndim > 1 and y.ndim == 1:
        shares = np.bincount(y, weight, scores.shape[1]) / weight.sum()
        yield np.broadcast_to(shares, scores.shape).astype(np.float64)
    else:
        yield np.broadcast_to(np.average(y, axis=0, weights=weight), scores.shape).astype(np.float64)
        yield np.ones(scores.shape)


def explained(symptom: Symptom | None, recipe: str, runtime: str, trained: bool, workload: Workload) -> str:
    """Return symptom, cause and next thing in one line, "" without a symptom; see `Done` for the arguments."""
    if symptom is None:
        return ""
    weights = list(workload.framework.weights(workload.model))
    channel_axes = (0, 1) if workload.framework.family == "torch" else (-1, -2)
    inputs = [leaf for leaf in leaves(next(workload.report_rows.batches())) if leaf.dtype.kind == "f"]
    done = Done(
        recipe=recipe,
        runtime=runtime,
        trained=trained,
        peak_weight=max((_peak(value) for _, value in weights if value.dtype.kind == "f"), default=0.0),
        widest=widest(weights, inputs, channel_axes),
        recurrent=any(re.search(r"weight_hh|recurrent_kernel", name) for name, _ in weights),
    )
    return explain(symptom, done).text


def widest(
    weights: Iterable[tuple[str, Array]], inputs: Iterable[Array], channel_axes: tuple[int, int]
) -> Range | None:
    """Return the channel of a layer, or the input feature, whose range exceeds the median channel's most.

    Args:
        weights: Name and value of each weight. Of one axis, those that scale channels (of a norm) count.
        inputs: Floating inputs, rows first; those of (rows, ..., features) count.
        channel_axes: Axes of a layer's output and input channels.
    """
    found: list[Range] = []
    for name, value in weights:
        if value.dtype.kind != "f":
            continue
        if value.ndim == 1 and name.endswith(("weight", "gamma")):
            found += _widest_of(value, 0, f"channel {{}} of {name}")
        elif value.ndim > 1:
            output, other = channel_axes
            found += _widest_of(value, output, f"output channel {{}} of {name}")
            found += _widest_of(value, other, f"input channel {{}} of {name}")
    for value in inputs:
        if value.ndim in (2, 3):
            found += [
                Range(each.where, each.ratio, is_input=True) for each in _widest_of(value, -1, "input feature {}")
            ]
    return max(found, key=lambda each: each.ratio, default=None)


def _widest_of(value: Array, axis: int, where: str) -> list[Range]:
    ranges = np.abs(np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).astype(np.float64)).max(axis=1)
    kept = ranges[np.isfinite(ranges) & (ranges > 0)]
    if len(kept) < 3:
        return []
    index = int(np.nanargmax(np.where(np.isfinite(ranges), ranges, -1)))
    return [Range(where.format(index), float(ranges[index] / np.median(kept)))]


def explain(symptom: Symptom, done: Done) -> Collapse:
    """Return the likely cause of a symptom and the next thing to try, from what was done to the model."""
    cause, do = _cause(symptom, done)
    if done.recipe.count("|") and "one at a time" not in do:
        do = f"run the steps one at a time to be sure, then {do}"
    return Collapse(symptom.what, cause, do)


def _cause(symptom: Symptom, done: Done) -> tuple[str, str]:
    broken = symptom.kind == "not finite"
    wide = done.widest if done.widest is not None and done.widest.ratio >= WIDE else None
    if done.has("baseline"):
        return (
            f"{done.runtime} computes the untouched model otherwise than its framework does",
            "leave this runtime out (--runtimes), or measure it with another --threads and report the difference",
        )
    if done.has("float16"):
        return _float16(symptom, done)
    if broken and done.trained and not done.has("int8"):
        return "training diverged", "try a smaller --learning-rate (a tenth), or fewer --epochs"
    if done.has("prune") and not done.trained and wide is None:
        return "pruned without fine-tuning", "try --epochs 3 with train data, or a smaller --sparsity"
    if done.has("int8"):
        return _int8(done, wide)
    if done.has("bfloat16"):
        return "bfloat16 keeps eight bits of each number, too few for this model", "try --dtype float16"
    if done.has("prune"):
        return "too much was pruned for so short a training", "try a smaller --sparsity, or more --epochs"
    if done.has("--student"):
        # It began from nothing, or from a part of the model's weights.
        return (
            "the student learned too little",
            "try more --epochs, or a larger student (--student narrow --width 0.75)",
        )
    if done.trained:
        return "training unlearned what the model knew", "try a smaller --learning-rate (a tenth), or fewer --epochs"
    return "not known for this recipe", "run its steps one at a time to see which it is"


def _float16(symptom: Symptom, done: Done) -> tuple[str, str]:
    beyond = {"weights reach": done.peak_weight, "its outputs reach": symptom.peak}
    told = next((f"{what} {peak:.3g}" for what, peak in beyond.items() if peak > FLOAT16_MAX), "")
    other = "try --dtype bfloat16 --runtimes openvino, whose range is float32's, or --dtype int8"
    if told:
        return f"float16 ends at 65,504 and {told}", other
    if symptom.kind == "not finite":
        return "float16 ends at 65,504, and a value on the way passed it", other
    return "float16 makes numbers below 6e-8 zero and keeps 11 bits of the others", other


def _int8(done: Done, wide: Range | None) -> tuple[str, str]:
    if wide is not None:
        cause = f"the range of {wide.where} is {_round(wide.ratio)} times the median's, and int8 has one scale for all"
        if wide.is_input:
            return cause, "standardize the inputs before training, or try --dtype float16"
        if done.has("--no-per-channel"):
            return cause, "leave --no-per-channel out, then try --dtype float16"
        return cause, (
            "try --dtype float16, or divide that channel and multiply the next layer's weights by as much, "
            "which leaves the model's function as it is"
        )
    if done.has("--no-per-channel"):
        steps = ", and recurrent layers feed the error back at every step" if done.recurrent else ""
        return f"one int8 scale for a whole weight{steps}", "leave --no-per-channel out, then try --dtype float16"
    if done.recurrent:
        return "recurrent layers feed the error of eight bits back at every step", "try --dtype float16"
    if done.has("dynamic"):
        return "eight bits are too few for a layer of this model", "try --method static, or --dtype float16"
    return (
        "ranges that calibration did not see, or a layer that eight bits are too few for",
        "try --calibration 2000, then --method dynamic, then --dtype float16",
    )


def _round(ratio: float) -> str:
    return f"{float(f'{ratio:.2g}'):,.0f}"


def _peak(values: Array) -> float:
    parts = (np.abs(np.asarray(values[part], dtype=np.float64)) for part in slices_of(values))
    return max(float(numbers.max(initial=0.0, where=np.isfinite(numbers))) for numbers in parts)


def _spread(values: Array) -> float:
    """Return the largest difference between rows of any output; -infinity, of a mask, counts as no number."""
    if not values.size:
        return 0.0
    least, most = np.inf, -np.inf
    for part in slices_of(values):
        numbers = np.asarray(values[part], dtype=np.float64)
        numbers = np.where(np.isfinite(numbers), numbers, 0.0)
        least, most = np.minimum(least, numbers.min(axis=0)), np.maximum(most, numbers.max(axis=0))
    return float(np.max(most - least))
