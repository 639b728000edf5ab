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
from numpy.typing import ArrayLike

from nbopt.errors import DataError, NbOptError, OptionError, nearest
from nbopt.frameworks import OutputKind
from nbopt.measurement import weighted
from nbopt.measurement.predictions import Scored, align
from nbopt.measurement.scores import Floats
from nbopt.measurement.weighted import Formula, Rows, Weighed
from nbopt.own_metric import greater_is_better, name_of

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
        formula: Value and influence of each row; None for a user's function.
        rows: From aligned labels and scores, what each row contributes, where the metric is a function of
            the mean of that; None for the others.
        counts: Rows contribute 0 or 1, so that exact tests for proportions hold.
        function: A user's function; None for a named metric.
    """

    name: str
    greater_is_better: bool
    bounded: bool
    needs: Needs
    output: OutputKind = "logits"
    takes_weight: bool = True
    formula: Formula | None = field(repr=False, default=None, kw_only=True)
    rows: Rows | None = field(repr=False, default=None, kw_only=True)
    counts: bool = field(default=False, kw_only=True)
    function: UserMetric | None = field(repr=False, default=None, kw_only=True)

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
        """Bring labels and scores to one form; see `predictions.align`, whose errors it raises."""
        return align(y_true, scores, self.output, weight)

    def of(self, scored: Scored) -> float:
        """Return the value for labels and scores that are aligned already.

        Raises:
            DataError: The metric is undefined for these labels, or there are weights that it can't take.
        """
        return self.weighed(scored).value

    def weighed(self, scored: Scored) -> Weighed:
        """Return value and influence of each row (empty for a user's function).

        Raises:
            DataError: As `of`.
        """
        if self.formula is None:
            found = Weighed(self._call(scored), np.empty(0))
        else:
            weight = np.ones(len(scored.y)) if scored.weight is None else scored.weight
            found = self.formula(scored.y, scored.scores, weight)
        if math.isnan(found.value):
            raise self._undefined(scored)
        return found

    def per_row(self, y_true: ArrayLike, scores: ArrayLike) -> Floats | None:
        """Return what each row contributes, or None where the metric is no function of a mean over rows.

        Accuracy: 0 or 1. log_loss: negative log likelihood. rmse: squared error. mae: absolute error.
        """
        scored = self.align(y_true, scores)
        return None if self.rows is None else self.rows(scored.y, scored.scores)

    def _call(self, scored: Scored) -> float:
        assert self.function is not None  # a metric has a formula or a function
        if scored.weight is not None and not self.takes_weight:
            raise DataError(
                "a metric that takes row weights, since the data has them",
                f"{self.name}(y_true, y_score)",
                f"write it as {self.name}(y_true, y_score, sample_weight=None)",
            )
        more = {} if scored.weight is None else {"sample_weight": scored.weight}
        try:
            value: Any = self.function(scored.y, scored.scores, **more)
        except NbOptError:
            raise
        except Exception as error:
            # Whatever a user's function raises: it is told with what the function was given.
            what = (str(error).strip().splitlines() or [""])[0]
            raise DataError(
                f"{self.name}(y_true, y_score) that takes labels of shape {scored.y.shape} and scores of shape "
                f"{scored.scores.shape}",
                f"{type(error).__name__}: {what}",
                self._scores_are(scored),
            ) from error
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"one number from {self.name}(y_true, y_score)",
                f"{type(value).__name__}: {error}",
                "return a float, for example the mean over rows",
            ) from error

    def _scores_are(self, scored: Scored) -> str:
        """Return what a user's function makes of the scores that it gets."""
        if self.output == "regression":
            return "y_score are the model's values"
        if scored.scores.ndim == 1:
            return "y_score is the probability of class 1: take y_score > 0.5 where classes are wanted"
        if self.output.startswith("multilabel"):
            return "y_score has a probability for each label: take y_score > 0.5 where labels are wanted"
        one = ", y_score[:, 1] for the probability of class 1" if scored.scores.shape[-1] == 2 else ""
        return f"y_score has a probability for each class: take y_score.argmax(-1) where classes are wanted{one}"

    def _undefined(self, scored: Scored) -> DataError:
        if self.name in {"auc", "average_precision"}:
            labels = ", ".join(map(str, np.unique(scored.y)[:3].tolist()))
            return DataError(
                f"rows of both classes, which {self.name} compares",
                f"{len(scored.y):,} rows, all of class {labels}" if scored.y.ndim == 1 else "constant labels",
                "shuffle before splitting, or use a split that holds every class; accuracy needs only one",
            )
        if self.name == "r2":
            return DataError("targets that vary", "constant targets, for which r2 is undefined", "use rmse or mae")
        return DataError(f"a number from {self.name}", "NaN", "the metric must be defined for all labels and scores")


def metric_of(spec: str | UserMetric | Metric | None, *, output: OutputKind) -> Metric:
    """Return the metric that a user named, wrote, or left to be inferred.

    Args:
        spec: accuracy, balanced_accuracy, auc, average_precision, f1, log_loss, rmse, mae, r2; or a function
            `f(y_true, y_score) -> float`, which may take `sample_weight` and carry an attribute
            `greater_is_better` (default by its
            name, see `nbopt.own_metric.greater_is_better`). It gets labels and probabilities (values for regression) as
            `predictions.prepare` gives them. None: rmse for regression, else accuracy.
        output: What the model's output means.

    Definitions, where they are not the same everywhere:
        accuracy: multilabel counts a row as right when all its labels are. Of a mask each place counts for itself; its
            interval is over rows, since the places of one are not independent.
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
        fitting = [name for name, other in METRICS.items() if (other.needs == "values") == (output == "regression")]
        raise OptionError(
            f"a metric for {'values' if output == 'regression' else 'classes'}: {', '.join(fitting)}",
            f"{spec}, while the model's output was taken as {output.replace('_', ' ')}",
            "name another metric, or pass the loss so that the output is read as you mean it"
            + ("; classes of one output are numbered 0 and 1" if output == "regression" else ""),
        )
    if output.startswith("multilabel") and spec == "balanced_accuracy":
        raise OptionError("a metric that is defined for several labels a row", spec, "use f1, auc or accuracy")
    return replace(metric, output=output)


def _from_callable(function: UserMetric, output: OutputKind) -> Metric:
    try:
        takes_weight = "sample_weight" in inspect.signature(function).parameters
    except ValueError:  # a builtin that tells no signature
        takes_weight = False
    return Metric(
        name_of(function),
        greater_is_better(function),
        bounded=False,
        needs="values" if output == "regression" else "scores",
        output=output,
        takes_weight=takes_weight,
        function=function,
    )


def _loss(name: str, needs: Needs, rows: Rows, formula: Formula) -> Metric:
    output: OutputKind = "regression" if needs == "values" else "logits"
    return Metric(name, False, bounded=False, needs=needs, output=output, rows=rows, formula=formula)


def _share(name: str, needs: Needs, formula: Formula) -> Metric:
    return Metric(name, True, bounded=True, needs=needs, formula=formula)


def _named() -> tuple[Metric, ...]:
    of = weighted
    return (
        replace(_share("accuracy", "labels", of.mean_of(of.correctness)), rows=of.correctness, counts=True),
        _share("balanced_accuracy", "labels", of.balanced_accuracy),
        _share("auc", "scores", of.auc),
        _share("average_precision", "scores", of.average_precision),
        _share("f1", "labels", of.f1),
        _loss("log_loss", "scores", of.cross_entropy, of.mean_of(of.cross_entropy)),
        _loss("rmse", "values", of.squared_error, of.root_mean_of(of.squared_error)),
        _loss("mae", "values", of.absolute_error, of.mean_of(of.absolute_error)),
        Metric("r2", True, bounded=False, needs="values", output="regression", formula=of.r2),
    )


METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _named()})
"""The named metrics, each for logits or values; `metric_of` fits them to a model's output."""
