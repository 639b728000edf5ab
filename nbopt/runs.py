"""Run, and RunStore, the folder beside the notebook that keeps every finished run with its artifact."""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.artifacts import Artifact, copy_artifact, copy_files, hash_of, load, sidecar_of, write_header, write_sidecar
from nbopt.errors import ArtifactError, NbOptWarning, StoreError
from nbopt.frameworks import framework_of
from nbopt.ledger import Ledger, Record, default_home
from nbopt.measurement.collapse import COLLAPSED
from nbopt.runtimes import Manifest

CONTROL = "control of "
"""What stands before a recipe where the untouched model was given its training, and nothing else of it."""


@dataclass(frozen=True)
class Run:
    """Hold one recipe on one workload and runtime: plain data, measured on the exported artifact.

    Figures are None where they were not measured. Units are in the names; intervals are 95%.

    Args:
        id: Unique.
        name: `RECIPE/RUNTIME`; a comparison makes it unique by `#2`.
        workload: The workload's name.
        workload_key: Content hash of model, reporting rows and metric.
        recipe: The recipe as one line of text, "baseline" for the untouched model.
        label: The recipe as a table writes it.
        framework: "torch", "keras" or "tf_keras".
        runtime: The runtime's word.
        status: "ok", or "failed" with `reason`.
        dtype: Realised precision of the artifact's weights, as found in it.
        precision: Precision that the runtime was asked to execute in.
        metric: Name of the metric.
        split: Split that `quality` was measured on.
        quality_delta: Quality less the baseline's, in the metric's own units.
        quality_p: Exact McNemar for accuracy, bootstrap for the others.
        agreement: Share of rows on which the prediction equals the baseline's (classes only).
        max_error: Largest absolute difference of an output from the baseline's.
        deflated_bytes: `size_bytes` after deflate.
        speedup: Baseline's latency over this run's: the median of paired ratios.
        speedup_runtime: What the runtime alone gave; times `speedup_technique` it is `speedup`.
        throughput: Rows a second at the best batch size, which is `throughput_batch`.
        throughputs: Rows a second at each batch size that was tried.
        contention: Wall time over CPU time per busy thread while measuring; 1 is a quiet machine.
        peak_memory_bytes: Peak of the worker process less its idle footprint.
        train_seconds: The technique's training.
        search_seconds: The rest of the technique's own time: export, conversion, calibration.
        measure_seconds: Time that measuring took beside that.
        macs: Multiply-accumulates of one row.
        peak_share: Share of the machine's own peak at the precision that most of them run in, 0 to 1.
        audit: What the loaded artifact really is, layer by layer (`nbopt.measurement.audit`).
        sensitivity: What was measured of single layers to choose among them: `what` it is, `layers` with a value
            each, and those `kept` as they were.
        search: What a search over training tried: `what` a score is, the `space`, the `trials`, the `finalists` with
            fresh seeds, and what was `chosen`; empty where nothing was searched.
        max_drop: Quality that might be lost, as the user said; None where nobody did, and in records of older versions.
        steps: Of a pipeline, what each step gave on each axis, in order: plain data of `measurement.steps.Step`.
        seeds: Seeds that the figures are a mean over; empty for one run of one seed.
        spread: Of each figure that varies with the seed its values in the order of `seeds`, by name; ids as `runs`.
        verdicts: One word for each axis: quality, latency, size, memory.
        verdict: The same as a few words.
        reason: Why it failed, or why the verdict is what it is.
        notes: Fallbacks and conditions that a reader must know.
        artifact: Path of the exported file, below the store's home.
        model_artifact: Path of the framework's model of the same recipe, below the store's home.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    name: str = ""
    workload: str = ""
    workload_key: str = ""
    recipe: str = "baseline"
    label: str = "baseline"
    framework: str = ""
    runtime: str = ""
    status: str = "ok"
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    seed: int = 0
    dtype: str = ""
    precision: str = ""
    metric: str = ""
    greater_is_better: bool = True
    bounded: bool = True
    split: str = ""
    rows: int = 0
    quality: float | None = None
    quality_low: float | None = None
    quality_high: float | None = None
    quality_delta: float | None = None
    quality_delta_low: float | None = None
    quality_delta_high: float | None = None
    quality_p: float | None = None
    agreement: float | None = None
    max_error: float | None = None
    size_bytes: int | None = None
    deflated_bytes: int | None = None
    params: int | None = None
    nonzero_params: int | None = None
    latency_ms: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    cpu_ms: float | None = None
    contention: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    speedup_runtime: float | None = None
    speedup_technique: float | None = None
    throughput: float | None = None
    throughput_batch: int | None = None
    throughputs: dict[str, float] = field(default_factory=dict)
    load_ms: float | None = None
    first_inference_ms: float | None = None
    peak_memory_bytes: int | None = None
    train_seconds: float | None = None
    search_seconds: float | None = None
    measure_seconds: float | None = None
    epochs: int | None = None
    cost_usd: float | None = None
    macs: int | None = None
    peak_share: float | None = None
    audit: dict[str, Any] = field(default_factory=dict)
    sensitivity: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    max_drop: float | None = None
    steps: tuple[dict[str, Any], ...] = ()
    seeds: tuple[int, ...] = ()
    spread: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""
    verdicts: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    notes: tuple[str, ...] = ()
    artifact: str = ""
    artifact_sha256: str = ""
    model_artifact: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    home: str = field(default="", compare=False)
    """Folder of the store that the paths are relative to; set when the run is kept or read."""

    @property
    def kept_name(self) -> str:
        """Return the name that it was kept with, without a comparison's `#2`."""
        return self.name.split("#")[0]

    @property
    def is_control(self) -> bool:
        """Tell whether this is the untouched model after the training that another run had."""
        return self.recipe.startswith(CONTROL)

    @property
    def is_baseline(self) -> bool:
        """Tell whether this is the untouched model on some runtime."""
        return self.recipe == "baseline"

    @property
    def is_native(self) -> bool:
        """Tell whether this is the untouched model on its own framework, whose runtime has the framework's word."""
        return self.is_baseline and self.runtime == self.framework.removeprefix("tf_")

    @property
    def failed(self) -> bool:
        """Tell whether there is no artifact, only a reason."""
        return self.status == "failed"

    @property
    def collapsed(self) -> bool:
        """Tell whether the artifact's outputs can't be trusted: `verdict` and `reason` say why."""
        return self.verdict.startswith(COLLAPSED)

    @property
    def path(self) -> Path:
        """Return where the exported file lies.

        Raises:
            ArtifactError: The run failed, or its file is gone.
        """
        if not self.artifact:
            raise ArtifactError(f"an artifact of {self.name}", f"none: {self.reason or 'the run failed'}")
        path = Path(self.home) / self.artifact
        if not path.exists():
            raise ArtifactError(f"the artifact of {self.name}", f"no file at {path}", "repeat the run")
        return path

    def predict(self, x: Any) -> np.ndarray[Any, Any]:
        """Return the artifact's primary output for `x`: an array, a tuple of arrays, or a mapping."""
        cached = _LOADED.get(self.id)
        if cached is None:
            cached = _LOADED[self.id] = load(self.path)
            while len(_LOADED) > KEEP_LOADED:
                _LOADED.pop(next(iter(_LOADED))).session.close()
        return cached.predict(x)

    def export(self, path: str | Path) -> Path:
        """Copy the artifact, and its manifest, to `path`; an ending left out is added.

        Where `path` has the ending of another form (`model.onnx` of an OpenVINO run), the file that the same
        recipe gave in that form is written, and a warning names its run: its figures are in a row of its own.
        A `.tflite` is also written as a C header where `path` ends in `.h`.

        Returns:
            The path written.

        Raises:
            ArtifactError: The recipe has no artifact of that form, or the run failed.
        """
        target = Path(path)
        if target.suffix == ".h" and self.path.suffix == ".tflite":
            return write_header(self.path, target)
        if target.suffix and target.suffix != self.path.suffix:
            twin = self._twin(target.suffix)
            if twin is not None:
                told = (
                    f"{target.name} is the file of {twin.name}, which was measured in its own row, not of {self.name}"
                )
                warnings.warn(told, NbOptWarning, stacklevel=2)
                return copy_artifact(twin.path, target)
        return copy_artifact(self.path, target)

    def _twin(self, suffix: str) -> Run | None:
        """Return the newest run of the same recipe, seed and workload whose artifact has another ending."""
        for run in reversed(_runs_of(Ledger(Path(self.home)), self.workload_key)):
            same = (run.recipe, run.seed) == (self.recipe, self.seed) and not run.failed
            if same and Path(run.artifact).suffix == suffix and (Path(run.home) / run.artifact).exists():
                return run
        return None

    @property
    def model(self) -> Any:
        """Return the framework's model of this run: a `torch.nn.Module` or `keras.Model`.

        Keras models with layers or classes of your own come back in the kernel that made them; their files hold
        what they compute and not the classes.

        Raises:
            ArtifactError: The model was not kept.
        """
        if not self.model_artifact:
            raise ArtifactError(f"the framework's model of {self.name}", "it was not kept", "run.predict(x) works")
        path = Path(self.home) / self.model_artifact
        held = _MODELS.get(str(path))
        if held is not None:
            return framework_of(held).clone(held)
        model = getattr(load(path).session, "model", None)
        if model is None:
            # A SavedModel, as models with classes of their own are kept, holds their functions and not the objects.
            raise ArtifactError(
                f"the framework's model of {self.name}",
                "it was kept as a function only: its file does not hold the code of your own classes, and the objects "
                f"are gone with the kernel that made them, or with the {KEEP_MODELS} made since",
                f"bind the model again and %optimize rerun {self.name}, whose new run has it; run.predict(x) works",
            )
        return model

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the store's folder."""
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "home"}
        return {key: _plain(value) for key, value in body.items()}

    @classmethod
    def from_dict(cls, body: dict[str, Any], home: str = "") -> Run:
        """Return a run from plain data; fields of a newer nbopt are left out."""
        known = {f.name for f in dataclasses.fields(cls)}
        kept = {key: value for key, value in body.items() if key in known}
        kept |= {name: tuple(kept.get(name, ())) for name in ("notes", "steps", "seeds")}
        return cls(**kept, home=home)


KEEP_LOADED = 4
_LOADED: dict[str, Artifact] = {}
KEEP_MODELS = 8
"""Models whose file does not hold them that one kernel keeps for `Run.model`; the oldest goes first."""
_MODELS: dict[str, Any] = {}


def hold_model(path: Path, model: Any) -> None:
    """Keep a model in memory for `Run.model`, where the file at `path` holds its function only.

    Args:
        path: Its artifact in the store.
        model: A model that nobody else changes.
    """
    _MODELS.pop(str(path), None)
    _MODELS[str(path)] = model
    while len(_MODELS) > KEEP_MODELS:
        _MODELS.pop(next(iter(_MODELS)))


def _plain(value: Any) -> Any:
    """Return a JSON value: NumPy scalars as Python's, NaN and infinity as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


class RunStore:
    """Keep runs in `runs.sqlite` and artifacts by content hash, in one folder.

    Any number of kernels may write at once. A run that `add` returned from survives the death of the process.

    Args:
        home: The folder; None takes `NBOPT_HOME`, or `.nbopt` beside the notebook.

    Raises:
        StoreError: The folder can't be written, or the store is damaged or of a newer nbopt.
    """

    def __init__(self, home: str | Path | None = None) -> None:
        self.home = Path(home).expanduser().resolve() if home is not None else default_home()
        self._ledger = Ledger(self.home)

    @property
    def database(self) -> Path:
        """Return the file that holds the runs."""
        return self._ledger.database

    def add(self, run: Run) -> Run:
        """Write a finished run, and return it bound to this store.

        Raises:
            StoreError: The disk is full, read-only, or the store is damaged; its `run` is the one that was not kept.
        """
        bound = dataclasses.replace(run, home=str(self.home))
        try:
            self._ledger.add(Record(run.id, run.workload_key, run.name, run.created, json.dumps(run.to_dict())))
        except StoreError as error:
            error.run = bound
            raise
        return bound

    def runs(self, workload_key: str | None = None) -> list[Run]:
        """Return all runs, oldest first, of one workload or of all."""
        return _runs_of(self._ledger, workload_key)

    def keep(self, path: Path, manifest: Manifest, about: dict[str, Any] | None = None) -> tuple[str, str]:
        """Copy an exported file into the store by its content.

        Returns:
            Its path below the store's home, and its SHA-256.

        Raises:
            StoreError: The disk is full or read-only.
        """
        with self._ledger.told():
            sha256 = hash_of(path)
            # Two runtimes, or two precisions, may share one file's bytes and still need their own manifest.
            folder = self.home / "artifacts" / f"{sha256[:16]}-{manifest.runtime}-{manifest.precision}"
            target = folder / f"model{path.suffix}"
            # A file that was cut short since then is replaced, so that repeating a run repairs it.
            if not _is_whole(target, sha256):
                # Copied under another name and renamed, so that a killed process leaves no half artifact.
                scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
                try:
                    copied = scratch / target.name
                    copy_files(path, copied)
                    write_sidecar(copied, manifest, about)
                    shutil.rmtree(folder, ignore_errors=True)
                    scratch.rename(folder)
                except OSError:
                    # Another process may have been first with the same content.
                    if not _is_whole(target, sha256):
                        raise
                finally:
                    shutil.rmtree(scratch, ignore_errors=True)
        return str(target.relative_to(self.home)), sha256


def _runs_of(ledger: Ledger, workload_key: str | None) -> list[Run]:
    return [Run.from_dict(json.loads(body), str(ledger.home)) for body in ledger.bodies(workload_key)]


def _is_whole(path: Path, sha256: str) -> bool:
    """Tell whether an artifact in the store has its manifest and the content that it had when it was kept."""
    return path.exists() and sidecar_of(path).exists() and hash_of(path) == sha256
