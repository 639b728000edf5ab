"""Quality metrics on the outputs of an exported artifact.

They need NumPy alone, so that a worker process stays light, and agree with scikit-learn where both
are defined.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt.errors import DataError, OptionError, nearest
from nbopt.frameworks import OutputKind
from nbopt.measurement import influence, weighted
from nbopt.measurement.influence import Influence
from nbopt.measurement.predictions import Floats, Scored, align
from nbopt.measurement.weighted import Statistic

Needs = Literal["labels", "scores", "values"]
UserMetric = Callable[..., Any]


@dataclass(frozen=True)
class Metric:
    """Judge scores against labels.

    Args:
        name: Name in tables.
        greater_is_better: Direction of better.
        bounded: The value lies in [0, 1], so that differences read in percentage points.
        needs: What is judged: predicted labels, the scores themselves, or predicted values.
        output: What the model's output means; decides how labels and scores are read.
        takes_weight: Row weights can be used.
        statistic: From aligned labels and scores, the metric as a function of row weights.
        rows: From aligned labels and scores, what each row contributes, where the metric is a function of
            the mean of that; None for the others.
        influence: How much each row moves the metric; None for a user's function.
        counts: Rows contribute 0 or 1, so that exact tests for proportions hold.
    """

    name: str
    greater_is_better: bool
    bounded: bool
    needs: Needs
    output: OutputKind = "logits"
    takes_weight: bool = True
    statistic: Callable[[NDArray[Any], Floats], Statistic] = field(repr=False, kw_only=True)
    rows: Callable[[NDArray[Any], Floats], Floats] | None = field(repr=False, default=None, kw_only=True)
    influence: Influence | None = field(repr=False, default=None, kw_only=True)
    counts: bool = field(default=False, kw_only=True)

    def __call__(self, y_true: ArrayLike, scores: ArrayLike, weight: ArrayLike | None = None) -> float:
        """Return the metric's value.

        Args:
            y_true: Labels or targets, a row for each of `scores`, in any form that `predictions.align` takes.
            scores: What `predictions.scores_to_probabilities` returns.
            weight: Row weights >= 0, or None.

        Raises:
            DataError: Labels and scores don't fit each other, or the metric is undefined for these labels
                (one class only with auc or average_precision, constant targets with r2).
        """
        return self.of(self.align(y_true, scores, weight))

    def align(self, y_true: ArrayLike, scores: ArrayLike, weight: ArrayLike | None = None) -> Scored:
        """Bring labels and scores to one form; see `predictions.align`, whose errors it raises.

        Raises:
            DataError: As `predictions.align`, or there are weights that the metric can't take.
        """
        if weight is not None and not self.takes_weight:
            raise DataError(
                "a metric that takes row weights, since the data has them",
                f"{self.name}(y_true, y_score)",
                f"write it as {self.name}(y_true, y_score, sample_weight=None)",
            )
        return align(y_true, scores, self.output, weight)

    def of(self, scored: Scored) -> float:
        """Return the value for labels and scores that are aligned already.

        Raises:
            DataError: The metric is undefined for these labels.
        """
        weights = np.ones(len(scored.y)) if scored.weight is None else scored.weight
        value = float(self.statistic(scored.y, scored.scores)(weights[None, :])[0])
        if math.isnan(value):
            raise self._undefined(scored)
        return value

    def per_row(self, y_true: ArrayLike, scores: ArrayLike) -> Floats | None:
        """Return what each row contributes, or None where the metric is no function of a mean over rows.

        Accuracy: 0 or 1. log_loss: negative log likelihood. rmse: squared error. mae: absolute error.
        """
        scored = self.align(y_true, scores)
        return None if self.rows is None else self.rows(scored.y, scored.scores)

    def _undefined(self, scored: Scored) -> DataError:
        if self.name in {"auc", "average_precision"}:
            found = ", ".join(map(str, np.unique(scored.y)[:3].tolist()))
            return DataError(
                f"rows of both classes, which {self.name} compares",
                f"{len(scored.y):,} rows, all of class {found}"
                if scored.y.ndim == 1
                else "labels that never vary",
                "shuffle before splitting, or use a split that holds every class; accuracy needs only one",
            )
        if self.name == "r2":
            return DataError(
                "targets that vary", "constant targets, for which r2 is undefined", "use rmse or mae"
            )
        return DataError(
            f"a number from {self.name}",
            "NaN",
            "the metric must be defined for every row of the reporting data",
        )


def metric_of(spec: str | UserMetric | Metric | None, *, output: OutputKind) -> Metric:
    """Return the metric that a user named, wrote, or left to be inferred.

    Args:
        spec: accuracy, balanced_accuracy, auc, average_precision, f1, log_loss, rmse, mae, r2; or a function
            `f(y_true, y_score) -> float`, which may take `sample_weight` and carry an attribute
            `greater_is_better` (default True). It gets labels and probabilities (values for regression) as
            `predictions.prepare` gives them. None: rmse for regression, else accuracy.
        output: What the model's output means.

    Definitions, where they are not the same everywhere:
        accuracy: multilabel counts a row as right when all its labels are.
        balanced_accuracy: mean recall of the classes that occur (Brodersen et al. 2010).
        auc: ties count half (Hanley & McNeil 1982); classes: each against the rest, unweighted mean over the
            classes that occur; multilabel: mean over labels.
        average_precision: sum of precision times the step in recall, not interpolated; means as for auc.
        f1: two classes: class 1 above probability 0.5; more: unweighted mean over the classes that occur in
            labels or predictions; multilabel: mean over labels.
        log_loss: nats; probabilities clipped at 2.2e-16.
        rmse: root of the mean over rows and outputs. r2: mean over outputs.

    Raises:
        OptionError: The name is unknown, or the metric does not go with the output.
    """
    if isinstance(spec, Metric):
        return replace(spec, output=output)
    if spec is None:
        spec = "rmse" if output == "regression" else "accuracy"
    if not isinstance(spec, str) and callable(spec):
        return _from_callable(spec, output)
    metric = METRICS.get(str(spec))
    if metric is None:
        raise OptionError(
            f"a metric: {', '.join(METRICS)}, or a function f(y_true, y_score)",
            repr(spec),
            nearest(str(spec), METRICS),
        )
    if (metric.needs == "values") != (output == "regression"):
        fitting = [
            name for name, other in METRICS.items() if (other.needs == "values") == (output == "regression")
        ]
        raise OptionError(
            f"a metric for {'values' if output == 'regression' else 'classes'}: {', '.join(fitting)}",
            f"{spec}, while the model's output was taken as {output.replace('_', ' ')}",
            "name another metric, or pass the loss so that the output is read as you mean it",
        )
    if output.startswith("multilabel") and spec == "balanced_accuracy":
        raise OptionError(
            "a metric that is defined for several labels a row", spec, "use f1, auc or accuracy"
        )
    return replace(metric, output=output)


def _from_callable(function: UserMetric, output: OutputKind) -> Metric:
    try:
        takes_weight = "sample_weight" in inspect.signature(function).parameters
    except ValueError:  # a builtin that tells no signature
        takes_weight = False

    def statistic(y: NDArray[Any], scores: Floats) -> Statistic:
        def of_weights(weights: Floats) -> Floats:
            return np.array([value(y, scores, one) for one in weights])

        return of_weights

    def value(y: NDArray[Any], scores: Floats, weight: Floats) -> float:
        if (weight == 1).all():
            return _as_float(function(y, scores), function)
        if takes_weight:
            return _as_float(function(y, scores, sample_weight=weight), function)
        # Without weights of the user's these are the counts of a bootstrap resample.
        drawn = np.repeat(np.arange(len(y)), weight.astype(np.int64))
        return _as_float(function(y[drawn], scores[drawn]), function)

    return Metric(
        getattr(function, "__name__", type(function).__name__),
        bool(getattr(function, "greater_is_better", True)),
        bounded=False,
        needs="values" if output == "regression" else "scores",
        output=output,
        takes_weight=takes_weight,
        statistic=statistic,
    )


def _as_float(value: Any, function: UserMetric) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        name = getattr(function, "__name__", "the metric")
        raise OptionError(
            f"one number from {name}(y_true, y_score)", f"{type(value).__name__}", str(error)
        ) from error


def _squared(y: NDArray[Any], values: Floats) -> Floats:
    return _over_outputs((y - values) ** 2)


def _absolute(y: NDArray[Any], values: Floats) -> Floats:
    return _over_outputs(np.abs(y - values))


def _over_outputs(errors: Floats) -> Floats:
    result: Floats = errors.mean(axis=1) if errors.ndim > 1 else errors
    return result


def _mean(
    name: str,
    rows: Callable[[NDArray[Any], Floats], Floats],
    *,
    needs: Needs,
    better: bool = False,
    counts: bool = False,
    root: bool = False,
) -> Metric:
    """Return a metric that is the mean of what rows contribute, or its root."""
    return Metric(
        name,
        better,
        bounded=counts,
        needs=needs,
        output="regression" if needs == "values" else "logits",
        statistic=lambda y, scores: weighted.mean(rows(y, scores), np.sqrt if root else None),
        rows=rows,
        influence=influence.of_root(rows) if root else influence.of_mean(rows),
        counts=counts,
    )


def _share(
    name: str, needs: Needs, statistic: Callable[[Any, Floats], Statistic], influences: Influence
) -> Metric:
    """Return a metric from 0 to 1 of which more is better."""
    return Metric(name, True, bounded=True, needs=needs, statistic=statistic, influence=influences)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            _mean("accuracy", weighted.correctness, needs="labels", better=True, counts=True),
            _share("balanced_accuracy", "labels", weighted.balanced_accuracy, influence.of_balanced_accuracy),
            _share("auc", "scores", weighted.auc, influence.of_auc),
            _share("average_precision", "scores", weighted.average_precision, influence.of_average_precision),
            _share("f1", "labels", weighted.f1, influence.of_f1),
            _mean("log_loss", weighted.cross_entropy, needs="scores"),
            _mean("rmse", _squared, needs="values", root=True),
            _mean("mae", _absolute, needs="values"),
            Metric(
                "r2",
                True,
                bounded=False,
                needs="values",
                output="regression",
                statistic=weighted.r2,
                influence=influence.of_r2,
            ),
        )
    }
)
"""The named metrics, each for logits or values; `metric_of` fits them to a model's output."""
