"""Mixed precision: the fewest of the most sensitive layers stay float, found by measuring."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nbopt.artifacts import available_threads
from nbopt.batches import Inputs, leaves, rows_of, take_rows
from nbopt.draft import Context
from nbopt.errors import DataError, ExportError, nearest
from nbopt.frameworks import Exported, Signature
from nbopt.frozen import join_ragged
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.predictions import prepare
from nbopt.measurement.quality import classes_of
from nbopt.progress import Progress
from nbopt.runtimes import Manifest, Runtime
from nbopt.techniques.quantize import LEAST_SHARE, int8_share

Array = np.ndarray[Any, Any]
SCANNED_ROWS = 256
"""Rows on which each layer's error is measured; on these, quality itself would be too coarse to rank by."""
JUDGED_BATCHES = 16
HELD_BYTES = 2**27
"""Of inputs and of outputs as large as images, fewer rows are judged than this holds, but 256 inputs."""
MOST_KEPT = 0.5
"""Share of the layers that may stay float: beyond it the file is float with some int8 in it."""


class Parts(Protocol):
    """A model that a back end can quantize with any of its layers left out."""

    @property
    def layers(self) -> Sequence[str]:
        """Return the layers that can be left out, in the order of the model."""
        ...

    def write(self, target: Path, kept: Collection[str]) -> None:
        """Write the quantized file with the layers `kept` in float."""
        ...


@dataclass(frozen=True)
class Mixed:
    """Say which layers stayed float.

    Args:
        kept: Their names.
        errors: For each layer the error of the outputs when it alone is quantized, as a share of their spread;
            empty where nothing had to be measured.
        notes: What a reader must know.
    """

    kept: tuple[str, ...] = ()
    errors: Mapping[str, float] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data as a run keeps it; {} where nothing was measured."""
        if not self.errors:
            return {}
        what = "error of the outputs with this layer alone quantized, as a share of their spread"
        return {"what": what, "layers": dict(self.errors), "kept": list(self.kept)}


def relative_error(outputs: Array, reference: Array) -> float:
    """Return the root mean square of the difference, as a share of the reference's spread around its mean."""
    spread = float(np.std(reference.astype(np.float64)))
    error = float(np.sqrt(np.mean((outputs.astype(np.float64) - reference) ** 2)))
    if not np.isfinite(error):
        return float("inf")
    return error / spread if spread else error


def fewest(
    errors: Mapping[str, float], lost: Callable[[tuple[str, ...]], float], allowed: float, most: int
) -> tuple[tuple[str, ...], float]:
    """Return the fewest layers, the most sensitive first, with which no more than `allowed` is lost, and that loss.

    The number is doubled until it is enough, and then halved back: about 2 log2 of it are tried. Where not even
    `most` are enough, the best that was tried is returned: fewer layers where they lose as little.

    Args:
        errors: Each layer's sensitivity.
        lost: Quality that is lost with some layers in float.
        allowed: Quality that may be lost.
        most: Layers that may be kept.
    """
    order = sorted(errors, key=lambda name: -errors[name])
    tried: dict[int, float] = {}

    def ask(count: int) -> bool:
        if count not in tried:
            tried[count] = lost(tuple(order[:count]))
        return tried[count] <= allowed

    count = min(1, most)
    while not ask(count) and count < most:
        count = min(2 * count, most)
    if tried[count] > allowed:
        count = min(tried, key=lambda n: (tried[n], n))
        return tuple(order[:count]), tried[count]
    low = max((n for n in tried if tried[n] > allowed), default=0)
    while count - low > 1:
        middle = (low + count) // 2
        if ask(middle):
            count = middle
        else:
            low = middle
    return tuple(order[:count]), tried[count]


def named_layers(asked: str, known: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that a user names by commas; a name also stands for all layers below it.

    Raises:
        ExportError: There is no layer of that name.
    """
    found: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in asked.split(","))):
        matched = [layer for layer in known if layer == name or layer.startswith(f"{name}.")]
        if not matched:
            some = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise ExportError(f"--keep-float with names among {some}", repr(name), nearest(name, known))
        found |= dict.fromkeys(matched)
    return tuple(found)


def write_mixed(
    parts: Parts,
    target: Path,
    asked: str,
    source: Path,
    manifest: Manifest,
    runtime: Runtime,
    context: Context,
) -> Mixed:
    """Write the quantized file, with layers in float as asked for.

    Args:
        parts: The back end.
        target: Where to write.
        asked: `Quantize.keep_float`.
        source: The float file.
        manifest: How to run both.
        runtime: Where.
        context: Workload, and how much quality may be lost.

    Raises:
        ExportError: A layer that was named does not exist.
    """
    if asked not in ("auto", "none"):
        kept = named_layers(asked, parts.layers)
        parts.write(target, kept)
        return Mixed(kept, notes=(f"in float as asked for: {', '.join(kept)}",))
    parts.write(target, ())
    allowed = context.max_drop
    if asked == "none" or allowed is None or not parts.layers:
        return Mixed()
    judge = _Judge(source, manifest, runtime, context)
    whole = judge.lost(target)
    if whole <= allowed:
        return Mixed()
    most = int(MOST_KEPT * len(parts.layers))
    if not most:
        told = f"{judge.what} lost {whole:.3g}, more than the {allowed:.3g} allowed"
        return Mixed(notes=(f"{told}, and no layer can stay in float: there is one alone",))
    errors: dict[str, float] = {}
    trial = target.with_name(f"trial{target.suffix}")
    for index, layer in enumerate(parts.layers):
        context.progress(Progress("sensitivity", index, len(parts.layers), layer))
        parts.write(trial, [other for other in parts.layers if other != layer])
        errors[layer] = judge.error(trial)

    def lost(kept: tuple[str, ...]) -> float:
        context.progress(Progress("sensitivity", note=f"{len(kept)} layers in float"))
        parts.write(trial, kept)
        # A layer that holds nearly all weights may be the most sensitive: without it nothing is int8.
        is_whole = int8_share(runtime.weight_precisions(trial)) >= LEAST_SHARE
        return judge.lost(trial) if is_whole else float("inf")

    kept, left = fewest(errors, lost, allowed, most)
    if left >= whole:
        kept, left = (), whole
    parts.write(target, kept)
    for file in (trial, trial.with_suffix(".bin")):
        file.unlink(missing_ok=True)
    named = f"in float: {', '.join(kept)} ({len(kept)} of {len(errors)} layers, the most sensitive)"
    if not kept:
        named = "no layer in float helps"
    enough = "" if left <= allowed else f", more than the {allowed:.3g} allowed: half of the layers in float"
    enough = enough and f"{enough} do not bring it down"
    return Mixed(
        kept, errors, (f"{named}; with all in int8 {judge.what} lost {whole:.3g}, now {max(left, 0.0):.3g}{enough}",)
    )


class _Judge:
    """Compare files with the float one on rows that do not report."""

    def __init__(self, source: Path, manifest: Manifest, runtime: Runtime, context: Context) -> None:
        work = context.workload
        self._manifest, self._runtime = manifest, runtime
        self.metric, self.output = metric_of(work.metric, output=work.output), work.output
        self.targets: Array | None = None
        self.weight: Array | None = None
        row = work.report_rows.first_row()
        most = max(1, HELD_BYTES // max(1, self._run(source, [row]).nbytes))
        select = work.select_rows if work.select is not work.report else None
        if select is not None and select.targets is not None:
            # Read anew each time: they lie on disk.
            self._batches: Callable[[], Iterable[Inputs]] = lambda: _first(
                islice(select.batches(), JUDGED_BATCHES), most
            )
            self.reference = self._run(source, self._batches())
            count = len(self.reference)
            weight = None if select.weight is None else select.weight[:count]
            self._judge_by(select.targets[:count], weight, f"{count:,} rows of {work.select.name}")
        else:
            # Test is never read for a choice.
            wanted = max(SCANNED_ROWS, HELD_BYTES // max(1, sum(leaf.nbytes for leaf in leaves(row))))
            drawn = work.calibration_rows(min(8 * SCANNED_ROWS, wanted), context.rng(), labelled=True)[0][:most]
            held = [each.inputs for each in drawn]
            self._batches = lambda: held
            self.reference = self._run(source, held)
            place = f"{len(held):,} calibration rows"
            if self.metric.counts:
                # Rows that become another class are an upper bound of what is lost, in the same units, and known of
                # each row: on rows that were trained on, labels tell less.
                self.what = f"agreement with the float model on {place}"
            else:
                self._judge_by(
                    _joined([each.targets for each in drawn]), _joined([each.weight for each in drawn]), place
                )
        self.few_reference = self._run(source, _first(self._batches(), SCANNED_ROWS))

    def _judge_by(self, targets: Array | None, weight: Array | None, place: str) -> None:
        """Choose what is true: the labels, or what the float model says where the metric is not defined for them."""
        kind = self.output
        own = self.reference if kind == "regression" else classes_of(self.reference, kind)
        self.what = f"agreement with the float model on {place}"
        for truth, weights, name in ((targets, weight, ""), (own, None, " against the float model's own outputs")):
            if truth is None:
                continue
            try:
                self.metric.of(prepare(truth, self.reference, kind, weights))
            except DataError:
                continue  # such as auc of rows that are all of one class
            self.targets, self.weight, self.what = truth, weights, f"{self.metric.name}{name} on {place}"
            return

    def _run(self, path: Path, batches: Iterable[Inputs]) -> Array:
        session = self._runtime.load(path, self._manifest, threads=available_threads())
        try:
            return join_ragged([session.run(batch) for batch in batches])
        finally:
            session.close()

    def error(self, path: Path) -> float:
        """Return how far outputs are from the float file's."""
        return relative_error(self._run(path, _first(self._batches(), SCANNED_ROWS)), self.few_reference)

    def lost(self, path: Path) -> float:
        """Return the quality that a file loses against the float file."""
        outputs = self._run(path, self._batches())
        if self.targets is None:
            if self.output == "regression":
                return relative_error(outputs, self.reference)
            return float(np.mean(classes_of(outputs, self.output) != classes_of(self.reference, self.output)))
        if not np.isfinite(outputs).all():
            return float("inf")
        before, after = (
            self.metric.of(prepare(self.targets, raw, self.output, self.weight)) for raw in (self.reference, outputs)
        )
        return float(before - after if self.metric.greater_is_better else after - before)


def _joined(parts: Sequence[Array | None]) -> Array | None:
    there = [part for part in parts if part is not None]
    return join_ragged(there) if len(there) == len(parts) else None


def _first(batches: Iterable[Inputs], rows: int) -> Iterator[Inputs]:
    for batch in batches:
        if rows <= 0:
            return
        yield take_rows(batch, slice(0, rows))
        rows -= rows_of(batch)


def manifest_for(runtime: Runtime, signature: Signature, source: Exported) -> Manifest:
    """Return how to run a file on its way, float or quantized."""
    return Manifest(
        runtime.name,
        tuple(signature.names),
        signature.keyed,
        source.batch,
        "int8",
        tuple(leaf.dtype for leaf in signature.leaves),
        tuple(leaf.shape for leaf in signature.leaves),
    )
