"""Stage: one workload's artifacts, its baselines, and the processes in which they are measured."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from nbopt.artifacts import available_threads, size_of
from nbopt.comparison import allowed_drop
from nbopt.errors import NbOptError, StoreError
from nbopt.frameworks import Exported
from nbopt.measurement import verdicts
from nbopt.measurement.bench import Bench
from nbopt.measurement.collapse import explained
from nbopt.measurement.environment import cpu_quota, governor, machine, revision
from nbopt.measurement.metrics import Metric, metric_of
from nbopt.measurement.subject import Measurement, Subject, measure_subject
from nbopt.runs import Run, RunStore
from nbopt.runtimes import Manifest, Runtime, all_runtimes, runtime_named
from nbopt.training import Progress, ProgressCallback, silent
from nbopt.workload import Workload

DEFAULT_MARGIN = 0.01
"""Loss of quality that "same" may hide where the user sets no --max-drop: one point, or 1% of an unbounded metric."""


@dataclass(frozen=True)
class Settings:
    """Say how to measure.

    Args:
        budget: "quick" or "full".
        threads: Threads of one inference in every runtime; None takes the cores that this process may use.
        max_drop: Loss of quality that is acceptable.
        seed: Seed of everything random.
        progress: Told how far the work has come.
    """

    budget: str = "quick"
    threads: int | None = None
    max_drop: float | None = None
    seed: int = 0
    progress: ProgressCallback = silent

    @property
    def thread_count(self) -> int:
        """Return the number of threads."""
        return self.threads or available_threads()


@dataclass
class Kept:
    """Hold a baseline that was measured: its run, its artifact in the store, and its outputs."""

    run: Run
    path: Path | None = None
    manifest: Manifest | None = None
    exported: Exported | None = None
    raw: Any = None


_BASELINES: WeakKeyDictionary[Workload, dict[tuple[str, int, str, str], Kept]] = WeakKeyDictionary()


@dataclass
class Stage:
    """Measure artifacts of one workload; benches of baselines stay open until `close`.

    Args:
        workload: The user's model and data.
        store: Where artifacts and runs are kept.
        settings: How to measure.
    """

    workload: Workload
    store: RunStore
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        self.metric: Metric = metric_of(self.workload.metric, output=self.workload.output)
        self.digest = self.workload.digest
        self._open: dict[str, Subject] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def native(self) -> Runtime:
        """Return the runtime on which the user runs the model today."""
        return runtime_named(self.workload.framework.native_runtime)

    def _cache(self) -> dict[tuple[str, int, str, str], Kept]:
        return _BASELINES.setdefault(self.workload, {})

    def _key(self, runtime: Runtime) -> tuple[str, int, str, str]:
        return runtime.name, self.settings.thread_count, self.digest, str(self.store.home)

    def baseline(self, runtime: Runtime) -> Kept:
        """Return the untouched model on one runtime, measured once and then cached by content.

        A runtime that refuses the model gives a failed run with the reason; the native one raises.
        """
        cache, key = self._cache(), self._key(runtime)
        if key not in cache or (cache[key].path is not None and not cache[key].path.exists()):  # type: ignore[union-attr]
            self._say(f"baseline on {runtime.title}")
            try:
                cache[key] = self._measure_baseline(runtime)
            except StoreError:
                raise
            except NbOptError as error:
                if runtime.name == self.native.name:
                    raise
                cache[key] = Kept(self.store.add(self.failed("baseline", "baseline", runtime, error)))
        return cache[key]

    def _measure_baseline(self, runtime: Runtime) -> Kept:
        missing = runtime.unavailable(self.workload.framework.name)
        if missing:
            raise NbOptError(missing)
        with self.scratch() as folder:
            exported = self.export(self.workload.model, runtime, folder)
            manifest = self.manifest(runtime, exported, "float32")
            relative, sha256 = self.store.keep(exported.path, manifest)
        path = self.store.home / relative
        kept = Kept(Run(), path, manifest, replace(exported, path=path))
        subject = self._open_baseline(runtime, kept)
        native = None if runtime.name == self.native.name else self.subject(self.native)
        measured = self.measure(subject, native, None)
        kept.raw = subject.raw
        kept.run = self.store.add(
            self.run(
                recipe="baseline",
                label="baseline",
                runtime=runtime,
                subject=subject,
                measured=measured,
                artifact=(relative, sha256),
                notes=exported.notes,
                counts=self.workload.framework.count(self.workload.model),
                model_artifact=relative if native is None else "",
            )
        )
        return kept

    def subject(self, runtime: Runtime) -> Subject:
        """Return the baseline on a runtime, open in its process.

        Raises:
            NbOptError: The baseline failed there.
        """
        if runtime.name not in self._open:
            kept = self.baseline(runtime)
            if kept.path is None:
                raise NbOptError(kept.run.reason)
            if runtime.name not in self._open:
                self._open_baseline(runtime, kept)
        return self._open[runtime.name]

    def _open_baseline(self, runtime: Runtime, kept: Kept) -> Subject:
        assert kept.path is not None
        assert kept.manifest is not None
        # With outputs at hand nothing is asked of the process yet: it loads while the caller goes on.
        bench = self._stack.enter_context(self.bench(kept.path, kept.manifest, wait=kept.raw is None))
        raw = bench.predict(self.workload.report_rows.folder) if kept.raw is None else kept.raw
        subject = self._open[runtime.name] = Subject(bench, raw, size_of(kept.path)[0])
        return subject

    def warm_up(self, runtimes: Sequence[Runtime]) -> None:
        """Start the processes of baselines that were measured before, so that they load during other work."""
        for runtime in runtimes:
            kept = self._cache().get(self._key(runtime))
            if kept is not None and kept.path is not None and kept.path.exists() and runtime.name not in self._open:
                self._open_baseline(runtime, kept)

    def bench(self, path: Path, manifest: Manifest, *, wait: bool = True) -> Bench:
        """Open an artifact in a fresh process."""
        return Bench(
            path,
            manifest,
            threads=self.settings.thread_count,
            folder=self.workload.report_rows.folder,
            wait=wait,
        )

    def export(self, model: Any, runtime: Runtime, folder: Path) -> Exported:
        """Write a model in a runtime's form into `folder`."""
        path = folder / f"model{runtime.suffix}"
        return self.workload.framework.export(model, self.workload.signature, path, runtime.form)

    def manifest(self, runtime: Runtime, exported: Exported, precision: str) -> Manifest:
        """Return what must be known to run an exported file."""
        signature = self.workload.signature
        device = self.workload.framework.device(self.workload.model) if runtime.needs_framework else "cpu"
        return Manifest(
            runtime=runtime.name,
            inputs=tuple(signature.names),
            keyed=signature.keyed,
            batch=exported.batch,
            precision=precision,
            dtypes=tuple(leaf.dtype for leaf in signature.leaves),
            shapes=tuple(leaf.shape for leaf in signature.leaves),
            output=self.workload.output,
            device=device,
        )

    def measure(self, subject: Subject, native: Subject | None, same_runtime: Subject | None) -> Measurement:
        """Measure one open artifact in turns with its baselines."""
        what = "measuring"
        return measure_subject(
            subject,
            native=native,
            same_runtime=same_runtime,
            rows=self.workload.report_rows,
            metric=self.metric,
            margin=self.margin(),
            budget=self.settings.budget,
            seed=self.settings.seed,
            waiting=lambda seconds: self._say(f"waiting for another measurement on this machine, {seconds:.0f} s"),
            on_round=lambda rounds: self.settings.progress(Progress(what, rounds.fraction, 1.0)),
        )

    def margin(self) -> float:
        """Return the acceptable loss in the metric's unit."""
        drop = DEFAULT_MARGIN if self.settings.max_drop is None else self.settings.max_drop
        native = self._cache().get(self._key(self.native))
        return drop if native is None else allowed_drop(native.run, drop)

    def _say(self, what: str) -> None:
        self.settings.progress(Progress(what))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for files on their way into the store."""
        with tempfile.TemporaryDirectory(prefix="nbopt-") as folder:
            yield Path(folder)

    def conditions(self) -> dict[str, Any]:
        """Return what figures were measured under."""
        return {
            **machine(),
            "threads": self.settings.thread_count,
            "governor": governor(),
            "cpu_quota": cpu_quota(),
            "git": revision(),
            "device": self.workload.framework.device(self.workload.model),
            "measure": self.settings.budget,
            "shared_rows": self.workload.shared_rows,
            "shared": {each.pair: each.to_dict() for each in self.workload.overlaps},
        }

    def _common(self, recipe: str, label: str, runtime: Runtime) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "workload_key": self.digest,
            "recipe": recipe,
            "label": label,
            "framework": self.workload.framework.name,
            "runtime": runtime.name,
            "seed": self.settings.seed,
            "metric": self.metric.name,
            "greater_is_better": self.metric.greater_is_better,
            "bounded": self.metric.bounded,
            "split": self.workload.report.name,
            "rows": self.workload.report_rows.rows,
            "environment": self.conditions(),
        }

    def failed(self, recipe: str, label: str, runtime: Runtime, error: NbOptError, words: str = "baseline") -> Run:
        """Return the row of a recipe that a runtime could not take."""
        return Run(
            **self._common(recipe, label, runtime),
            name=f"{words}/{runtime.name}",
            status="failed",
            verdict="failed",
            reason=error.one_line,
        )

    def run(
        self,
        *,
        recipe: str,
        label: str,
        runtime: Runtime,
        subject: Subject,
        measured: Measurement,
        artifact: tuple[str, str],
        notes: Sequence[str],
        counts: tuple[int, int],
        words: str = "baseline",
        **more: Any,
    ) -> Run:
        """Return the row of what was measured."""
        path = self.store.home / artifact[0]
        size, deflated = size_of(path)
        quality, latency = measured.quality, measured.latency
        difference = None if quality.difference is None else quality.difference.interval
        speedup, technique = measured.speedup, measured.technique
        baseline = recipe == "baseline"
        native = measured.speedup is None
        reason = explained(quality.symptom, f"{recipe} {label}", runtime.name, bool(more.get("epochs")), self.workload)
        words_of = phrase = "baseline"
        if not native:
            phrase = verdicts.phrase(measured.verdicts, self.metric.name, runtime_only=baseline)
        words_of = f"{words}/{runtime.name}"
        return Run(
            **self._common(recipe, label, runtime),
            name=words_of,
            dtype=precision_text(runtime.weight_precisions(path)),
            precision=subject.bench.manifest.precision,
            quality=None if quality.value is None else quality.value.value,
            quality_low=None if quality.value is None else quality.value.low,
            quality_high=None if quality.value is None else quality.value.high,
            quality_delta=None if difference is None else difference.value,
            quality_delta_low=None if difference is None else difference.low,
            quality_delta_high=None if difference is None else difference.high,
            quality_p=None if quality.difference is None else quality.difference.p,
            agreement=quality.agreement,
            max_error=quality.max_error,
            size_bytes=size,
            deflated_bytes=deflated,
            params=counts[0],
            nonzero_params=counts[1],
            latency_ms=latency.median,
            latency_low_ms=latency.low,
            latency_high_ms=latency.high,
            latency_p90_ms=latency.p90,
            latency_p99_ms=latency.p99,
            cpu_ms=latency.cpu,
            contention=measured.contention,
            speedup=1.0 if speedup is None else speedup.value,
            speedup_low=None if speedup is None else speedup.low,
            speedup_high=None if speedup is None else speedup.high,
            # The product is exact by definition: what the technique did not give in the same rounds, the runtime gave.
            speedup_runtime=1.0 if native else _runtime_share(speedup, technique, baseline),
            speedup_technique=1.0 if baseline or technique is None else technique.value,
            throughput=measured.throughput,
            throughput_batch=measured.throughput_batch,
            load_ms=subject.bench.loaded.load_ms,
            first_inference_ms=subject.bench.loaded.first_ms,
            peak_memory_bytes=subject.bench.loaded.peak_bytes,
            verdicts=measured.verdicts,
            verdict=reason.split(";")[0] if reason else phrase,
            reason=reason,
            notes=tuple(notes),
            artifact=artifact[0],
            artifact_sha256=artifact[1],
            **more,
        )


def _runtime_share(speedup: Any, technique: Any, baseline: bool) -> float:
    if baseline or technique is None:
        return float(speedup.value)
    return float(speedup.value / technique.value)


def precision_text(elements: dict[str, int]) -> str:
    """Return what precision an artifact's weights really have: "int8", or "int8 98%, float32 2%"."""
    total = sum(elements.values())
    if not total:
        return ""
    ordered = sorted(elements.items(), key=lambda pair: -pair[1])
    shares = [(name, count / total) for name, count in ordered if count / total >= 0.005]
    if len(shares) == 1:
        return shares[0][0]
    return ", ".join(f"{name} {share:.0%}" for name, share in shares)


def choose_runtimes(workload: Workload, wanted: Sequence[str] | str | None) -> list[Runtime]:
    """Return the runtimes to report on, the native one first.

    Args:
        workload: Decides the framework.
        wanted: Words, "all", or None for those that are on by default and can be used here.

    Raises:
        OptionError: There is no runtime of that name.
    """
    framework = workload.framework
    native = runtime_named(framework.native_runtime)
    found = [r for r in all_runtimes().values() if r.name != native.name]
    if wanted is None:
        chosen = [r for r in found if r.by_default and not r.unavailable(framework.name)]
    elif wanted == "all" or list(wanted) == ["all"]:
        chosen = [r for r in found if framework.name in r.frameworks]
    else:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        chosen = [r for r in map(runtime_named, names) if r.name != native.name]
    return [native, *chosen]
