"""Workload: what is optimized. The user's model, its data, and how quality is judged."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from nbopt.batches import Batch, Inputs, all_finite, map_leaves, numeric_inputs, rows_of
from nbopt.data import Split, kept_randomness
from nbopt.errors import DataError, ModelError, NbOptError, NbOptWarning
from nbopt.frameworks import Framework, Signature, framework_of
from nbopt.frameworks._weights import add_weights
from nbopt.frozen import Frozen, freeze, opened
from nbopt.misfits import misfit
from nbopt.outputs import infer_output
from nbopt.overlap import Hashed, Overlap, hash_split, overlap_of, rows_apart
from nbopt.own_metric import content_of, greater_is_better, name_of


class Workload:
    """Bind a model with its data and metric.

    Args:
        model: A `torch.nn.Module` or `keras.Model`. It is never mutated; techniques work on copies.
        train: Data that techniques train and calibrate on. Forms: a DataLoader, a `tf.data.Dataset`, arrays
            `(x, y)`, or any re-iterable of batches `(x, y)`, `(x, y, weight)`, `(dict, y)` or dicts with `labels`.
        valid: Data that techniques select on.
        test: Data that figures are reported on; `valid` where there is none, and then the table says so.
        metric: accuracy, balanced_accuracy, auc, average_precision, f1, log_loss, rmse, mae, r2, or a function
            `f(y_true, y_score)`, of which more is better unless it is named as an error is (`mse`,
            `mean_absolute_error`) or has an attribute `greater_is_better`. None: accuracy for classes, rmse for values.
        loss: The framework's loss; None infers it from the output and the labels.
        name: Name in tables; None takes the model's class.

    Raises:
        ModelError: `model` is not a model, or does not run on the data.
        DataError: There is no valid or test data, or it can't be used.

    Examples:
        >>> work = nbopt.Workload(model, train=train_dl, valid=valid_dl, metric="accuracy")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        *,
        train: Any = None,
        valid: Any = None,
        test: Any = None,
        metric: str | Callable[..., float] | None = None,
        loss: Any = None,
        name: str | None = None,
    ) -> None:
        self.framework: Framework = framework_of(model)
        self.model = model
        if valid is None and test is None:
            raise DataError(
                "valid or test data, which quality is measured on",
                "neither" if train is None else "train data only",
                "%optimize use model --train train_dl --valid valid_dl, or Workload(model, valid=(x, y))",
            )
        self.train = None if train is None else Split(train, "train")
        self.valid = None if valid is None else Split(valid, "valid")
        self.test = None if test is None else Split(test, "test")
        self.metric = metric
        # Read once: whatever a metric counts or keeps while it is called makes no other metric of it.
        self._metric_content = content_of(metric) if callable(metric) else ""
        # A loss of Keras is numbered by how many there were before: its name and its class tell it.
        self._loss_content = content_of(loss) if callable(loss) and not hasattr(loss, "get_config") else ""
        self.user_loss = loss
        self.name = name or _name_of(model)
        self.notes: list[str] = []
        if self.framework.in_training_mode(model):
            self._warn(
                "the model is in training mode; nbopt measures a copy in evaluation mode (as after model.eval())"
            )
        with kept_randomness(self.report):
            first = self.report.first()
            raw = self._try(first)
            again = self._try(first)
            passed_over = self.framework.passed_over(
                model, numeric_inputs(first.inputs, self.framework.float_dtype(model))
            )
        if passed_over:
            self.notes.append(passed_over)
        if is_random(raw, again):
            self._warn(
                "the model gives other outputs for the same rows each time, in evaluation mode too (sampling, or "
                "dropout without training=self.training?): every figure has that in it"
            )
        declared = self.framework.declared_output(model, loss)
        self.output, self.output_reason = infer_output(raw, first.targets, declared)
        self.outputs_shape = raw.shape[1:]
        self.loss, self.loss_name = self.framework.loss(model, loss, self.output)

    def _warn(self, note: str) -> None:
        """Keep a note for the card, and warn of it where the workload is made."""
        self.notes.append(note)
        warnings.warn(note, NbOptWarning, stacklevel=3)

    def _try(self, batch: Batch) -> np.ndarray[Any, Any]:
        """Run the user's model on its first batch, so that a mismatch is told at once."""
        inputs = numeric_inputs(batch.inputs, self.framework.float_dtype(self.model))
        try:
            raw = self.framework.predict(self.model, inputs)
        except NbOptError:
            raise
        except Exception as error:
            # Whatever a user's forward raises belongs to the user: it is passed on with the shapes that caused it.
            raise misfit(self.report.name, batch, inputs, error) from error
        if raw.ndim == 0 or len(raw) != rows_of(inputs):
            raise ModelError(
                f"an output row for each of the {rows_of(inputs)} input rows",
                f"an output of shape {raw.shape}" if raw.ndim else "a single number (a loss?)",
                "the first axis of inputs and outputs must be the batch",
            )
        broken = int(np.isnan(raw.reshape(len(raw), -1)).any(axis=1).sum()) if raw.dtype.kind == "f" else 0
        if broken and all_finite(batch):
            raise ModelError(
                "a model whose outputs are numbers",
                f"NaN in {broken} of {len(raw)} rows of the first {self.report.name} batch, whose inputs are finite",
                "look for NaN among its weights, or for inputs that were not scaled as in its training",
            )
        return raw

    @property
    def report(self) -> Split:
        """Return the split that figures are reported on."""
        split = self.test or self.valid
        assert split is not None
        return split

    @property
    def select(self) -> Split:
        """Return the split that techniques select on."""
        return self.valid or self.report

    @cached_property
    def report_rows(self) -> Frozen:
        """Return the reporting rows, frozen to disk in one order for every variant."""
        return freeze(self.report, float_dtype=self.framework.float_dtype(self.model))

    @cached_property
    def select_rows(self) -> Frozen:
        """Return the selection rows, frozen likewise."""
        if self.select is self.report:
            return self.report_rows
        return freeze(self.select, float_dtype=self.framework.float_dtype(self.model))

    @cached_property
    def signature(self) -> Signature:
        """Return the model's inputs as an export needs them.

        An axis is open where any split varies in it, and the model takes that: batches that are padded each to its
        own longest row may have one length in test by chance, and another in train.
        """
        frozen = self.report_rows
        found = frozen.signature
        for hashed in (self._valid_hashed, self._train_hashed):
            for row in () if hashed is None else hashed.samples:
                wider = opened(found, row)
                if wider != found and self._takes(row):
                    found = wider
        return Signature(found, frozen.keyed, frozen.first_row())

    def _takes(self, row: Inputs) -> bool:
        """Tell whether the model runs on a row of another shape than those that report."""
        try:
            with kept_randomness():
                self.framework.predict(self.model, row)
        except Exception:  # noqa: BLE001 - whatever a user's forward raises: that shape is a slip, told where it is used
            return False
        return True

    @cached_property
    def _train_hashed(self) -> Hashed | None:
        return None if self.train is None else hash_split(self.train, self.framework.float_dtype(self.model))

    @cached_property
    def _valid_hashed(self) -> Hashed | None:
        """Return what valid holds where test reports; without test it is what reports."""
        if self.valid is None or self.test is None:
            return None
        frozen: Frozen | None = self.__dict__.get("select_rows")
        if frozen is not None:
            return Hashed(frozen.row_digests, frozen.rows, samples=frozen.samples)
        return hash_split(self.valid, self.framework.float_dtype(self.model))

    @property
    def digest(self) -> str:
        """Return a content hash of the model's weights as they are now, the reporting rows and the metric.

        Read anew on each call: a user who trains the bound model on has another model.
        """
        digest = hashlib.sha256(self.report_rows.digest.encode())
        add_weights(digest, self.framework, self.model)
        digest.update(self.metric_name.encode())
        digest.update(self._metric_content.encode())
        return digest.hexdigest()

    @property
    def training_digest(self) -> str:
        """Return a content hash of what a training goes by beside the model: train, the selection rows, the loss."""
        digest = hashlib.sha256(f"{self.train_digest} {self.select_rows.digest} {self.loss_name}".encode())
        digest.update(self._loss_content.encode())
        return digest.hexdigest()

    @property
    def metric_name(self) -> str:
        """Return the metric as the user named it, or what is inferred."""
        if self.metric is None:
            return "rmse" if self.output == "regression" else "accuracy"
        return self.metric if isinstance(self.metric, str) else name_of(self.metric)

    @cached_property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Return what the splits share, by content of the inputs: train with test, train with valid, valid with test.

        Each split is read and hashed once, at most 200,000 rows of train and of valid. Where more than 1% of the
        reporting rows are shared, a warning says that figures are optimistic.
        """
        report = self.report_rows.row_digests
        found: list[Overlap] = []
        train, valid = self._train_hashed, self._valid_hashed
        if train is not None:
            found.append(overlap_of("train", train, self.report.name, report))
        if valid is not None:
            if train is not None:
                found.append(overlap_of("train", train, "valid", valid.digests))
            found.append(overlap_of("valid", valid, "test", report))
        for each in found:
            if each.optimistic and each.second == self.report.name:
                warnings.warn(each.text(self.report.name), NbOptWarning, stacklevel=2)
        return tuple(found)

    @cached_property
    def train_digest(self) -> str:
        """Return a content hash of train's rows and labels in any order, of the first 200,000; "" without train."""
        rows = self._train_hashed
        return "" if rows is None else f"{rows.labelled:016x}{rows.read:x}"

    @property
    def shared(self) -> dict[str, int]:
        """Return how many distinct rows each pair of splits shares: {"train-test": 3, ...}; see `overlaps`."""
        return {each.pair: each.rows for each in self.overlaps}

    @property
    def shared_rows(self) -> int:
        """Return how many distinct reporting rows stand in train too, by content."""
        return self.shared.get(f"train-{self.report.name}", 0)

    def calibration(self, rows: int, rng: np.random.Generator) -> tuple[list[Inputs], str]:
        """Return the inputs of `calibration_rows`, and its note."""
        chosen, note = self.calibration_rows(rows, rng)
        return [row.inputs for row in chosen], note

    def calibration_rows(
        self, rows: int, rng: np.random.Generator, *, labelled: bool = False
    ) -> tuple[list[Batch], str]:
        """Return up to `rows` rows of train as batches of one, and a note where a reader must know more.

        They are drawn at random from the first batches that hold eight times as many rows, so that a loader
        sorted by class does not calibrate on one class alone. A row that stands among the reporting rows too is
        left out, and the note says how many were. Test is never read for it. Without train, valid serves; where
        that is what reports, or holds all of train's rows and reports, there is nothing else to calibrate on, and
        the note calls it a leak.

        Raises:
            DataError: There is neither train nor valid, or every row of it stands in test too.
        """
        split = self.train or self.valid
        if split is None:
            raise DataError(
                "train data to calibrate on (test is never read for it)",
                "test only",
                "Workload(..., train=...) or --train train_dl",
            )
        dtype = self.framework.float_dtype(self.model)
        leaks = split is self.report
        reporting: frozenset[bytes] = frozenset() if leaks else self.report_rows.row_digests
        pool, left_out = rows_apart(split, 8 * rows, dtype, reporting, labelled=labelled)
        if not pool and self.test is None:
            # Whoever has one data set for both is told so, and still sees what the technique does.
            leaks = True
            pool, left_out = rows_apart(split, 8 * rows, dtype, frozenset(), labelled=labelled)
        if not pool:
            raise DataError(
                f"rows of {split.name} to calibrate on that do not report",
                f"{left_out:,} rows, all of which stand in {self.report.name} too",
                f"give other rows as {'train' if self.train else 'valid'}, or take what needs no calibration: "
                "quantize --method dynamic, or --dtype float16",
            )
        finite = [row for row in pool if all_finite(Batch(row.inputs))]
        if not finite:
            raise DataError(
                f"finite numbers in {split.name} to calibrate on", f"NaN or infinity in all of {len(pool):,} rows"
            )
        broken, pool = len(pool) - len(finite), finite
        chosen = rng.permutation(len(pool))[:rows]
        notes = [] if self.train else ["calibrated on valid: no train data was given"]
        if leaks:
            count = f"{len(chosen):,} of the {self.report_rows.rows:,} rows"
            notes = [
                f"calibrated on {count} that report: a leak, so quality is optimistic; other rows as train avoid it"
            ]
        if left_out:
            which = "1 row" if left_out == 1 else f"{left_out:,} rows"
            verb, was = ("stands", "was") if left_out == 1 else ("stand", "were")
            notes.append(f"{which} of {split.name} that {verb} in {self.report.name} too {was} left out of calibration")
        if broken:
            # A range with NaN in it is none; which runtime copes with that, and how, is chance.
            notes.append(f"{broken:,} of the rows of {split.name} with NaN or infinity left out of calibration")
        return [_copied(pool[i]) for i in chosen], "; ".join(notes)

    def describe(self) -> list[tuple[str, str]]:
        """Return the card: what is bound, and what was inferred, as pairs of words."""
        total, nonzero = self.framework.count(self.model)
        device = self.framework.device(self.model)
        inputs = ", ".join(f"{leaf.name} {_leaf_text(leaf.shape)} {leaf.dtype}" for leaf in self.signature.leaves)
        shape = "scalar" if not self.outputs_shape else " x ".join(map(str, self.outputs_shape))
        yours = ""
        if callable(self.metric):
            yours = f" (yours, {'more' if greater_is_better(self.metric) else 'less'} is better)"
        card = [
            ("model", f"{self.name} ({self.framework.name}, {device}), {total:,} parameters"),
            ("inputs", inputs),
            ("output", f"{shape}, {self.output.replace('_', ' ')} ({self.output_reason})"),
            ("loss", self.loss_name),
            ("metric", f"{self.metric_name}{yours} on {self.report.name}, {self.report_rows.rows:,} rows"),
        ]
        if nonzero < 0.995 * total:
            card.append(("zeros", f"{1 - nonzero / total:.0%} of the parameters"))
        if self.train is None:
            card.append(("train", "none: techniques that train or calibrate have less to go on"))
        card += self._shared_card()
        if self.test is None:
            card.append(("note", "no test data: figures are reported on valid, which techniques also select on"))
        card += [("note", note) for note in self.notes]
        return card

    def _shared_card(self) -> list[tuple[str, str]]:
        """Return the card's lines on what the splits share; one line where that is nothing."""
        report, found = self.report.name, self.overlaps
        told = [(each, each.text(report)) for each in found if each.rows or not each.whole]
        lines = [("warning" if each.optimistic and each.second == report else "shared rows", t) for each, t in told]
        if found and not lines:
            lines = [("shared rows", f"none between {' and '.join(self._split_names())}")]
        return lines

    def _split_names(self) -> list[str]:
        names = [split.name for split in (self.train, self.valid, self.test) if split is not None]
        return [", ".join(names[:-1]), names[-1]]

    def __repr__(self) -> str:
        width = max(len(key) for key, _ in self.describe())
        return "\n".join(f"{key:<{width}}  {value}" for key, value in self.describe())


def _copied(row: Batch) -> Batch:
    """Return a row that holds nothing but itself: a view holds all of the batch that it was read in."""
    inputs = map_leaves(lambda leaf: np.array(leaf, order="C"), row.inputs)
    return Batch(inputs, *(None if part is None else np.array(part) for part in (row.targets, row.weight)))


RANDOM = 1e-3
"""Share of the largest output by which two calls may differ: what threads add up in another order is far below."""


def is_random(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> bool:
    """Tell whether two calls with the same rows gave different outputs."""
    if first.shape != second.shape or first.dtype.kind != "f":
        return first.shape != second.shape or bool((first != second).any())
    a, b = (np.where(np.isfinite(each), each, 0.0).astype(np.float64) for each in (first, second))
    return bool(a.size and np.abs(a - b).max() > RANDOM * np.abs(a).max())


def _name_of(model: Any) -> str:
    # A Keras model has a name; an attribute `name` of a torch module may be anything.
    given = "" if hasattr(model, "state_dict") else getattr(model, "name", "")
    return str(given or type(model).__name__)


def _leaf_text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("n" if size is None else str(size) for size in shape) + ")"
