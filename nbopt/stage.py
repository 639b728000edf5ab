"""Stage: one workload's artifacts, its baselines, and the processes in which they are measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.artifacts import size_of
from nbopt.baselines import Kept, Key, baselines_of
from nbopt.bounds import DEFAULT_DROP, allowed_drop
from nbopt.draft import Context, Deployed
from nbopt.errors import ExportError, NbOptError, StoreError
from nbopt.frameworks import Exported
from nbopt.measurement.bench import Bench
from nbopt.measurement.budget import Budget
from nbopt.measurement.lock import measuring
from nbopt.measurement.metrics import Metric, metric_of
from nbopt.measurement.process import WorkerProcess
from nbopt.measurement.subject import Measurement, Subject, measure_subject
from nbopt.progress import Progress
from nbopt.recording import Recorder, Settings
from nbopt.runs import Run, RunStore, hold_model
from nbopt.runtimes import Manifest, Runtime, all_runtimes, runtime_named
from nbopt.workload import Workload

TRIAL_NS = 5e8  # time of one try in a search


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
        self.record = Recorder(self.workload, self.metric, self.digest, self.settings, self.store.home)
        self._baselines = baselines_of(self.workload)
        self._device = self.workload.framework.device(self.workload.model)
        self._failed: dict[str, Kept] = {}
        self._open: dict[str, Subject] = {}
        self._spare: dict[str, WorkerProcess] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Stage:
        self._stack.enter_context(self.workload.framework.exporting())
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._spare.values():
            process.close()
        self._spare.clear()
        self._stack.close()

    @property
    def native(self) -> Runtime:
        """Return the runtime on which the user runs the model today."""
        return runtime_named(self.workload.framework.native_runtime)

    def _key(self, runtime: Runtime) -> Key:
        return Key(runtime.name, self.settings.thread_count, self.digest, str(self.store.home), self._device)

    def _known(self, runtime: Runtime) -> Kept | None:
        return self._failed.get(runtime.name) or self._baselines.find(self._key(runtime), self.settings.budget)

    def control(self, training: Hashable, make: Callable[[], Run]) -> Run:
        """Return the row of the untouched model after a training, made once for all recipes of that training.

        What it tells is quality, so that any one runtime will do.
        """
        known = self._baselines.controls
        key = self._key(self.native), self.settings.budget, training
        run = known.get(key)
        if run is None or not (Path(run.home) / run.artifact).exists():
            run = make()
            if not run.failed:
                known[key] = run
        return run

    def baseline(self, runtime: Runtime) -> Kept:
        """Return the untouched model on one runtime, measured once and then cached by content.

        A runtime that refuses the model gives a failed run with the reason; the native one raises.
        """
        known = self._known(runtime)
        if known is None:
            self._say(f"baseline on {runtime.title}")
            try:
                known = self._measure_baseline(runtime)
            except StoreError:
                raise
            except NbOptError as error:
                known = self._failed[runtime.name] = self._failure(runtime, error)
            self._baselines.keep(self._key(runtime), known)
        return known

    def _failure(self, runtime: Runtime, error: NbOptError, *, refused: bool = False) -> Kept:
        if runtime.name == self.native.name:
            raise error
        return Kept(self.store.add(self.record.failed("baseline", "baseline", runtime, error)), refused=refused)

    def _measure_baseline(self, runtime: Runtime) -> Kept:
        missing = runtime.unavailable(self.workload.framework.family)
        if missing:
            raise NbOptError(missing)
        began = time.perf_counter()
        self.prepare(runtime)
        with self.scratch() as folder:
            try:
                exported = self.export(self.workload.model, runtime, folder)
            except ExportError as error:
                return self._failure(runtime, error, refused=True)
            manifest = self.manifest(runtime, exported, "float32")
            relative, sha256 = self.store.keep(exported.path, manifest)
        path = self.store.home / relative
        exported_seconds = time.perf_counter() - began
        kept = Kept(Run(), path, manifest, replace(exported, path=path))
        subject = self._open_baseline(runtime, kept)
        native = None if runtime.name == self.native.name else self.subject(self.native)
        measured = self.measure(subject, native, None)
        kept.raw = subject.raw
        if native is None:
            self._hold(self.workload.model, exported, relative)
        kept.run = self.store.add(
            self.record.run(
                recipe="baseline",
                label="baseline",
                runtime=runtime,
                subject=subject,
                measured=measured,
                artifact=(relative, sha256),
                notes=exported.notes,
                counts=self.workload.framework.count(self.workload.model),
                model_artifact=relative if native is None else "",
                search_seconds=exported_seconds,
                measure_seconds=time.perf_counter() - began - exported_seconds,
            )
        )
        return kept

    def subject(self, runtime: Runtime) -> Subject:
        """Return the baseline on a runtime, open in its process.

        Raises:
            NbOptError: The baseline failed there.
        """
        if not self._is_open(runtime):
            kept = self.baseline(runtime)
            if kept.path is None:
                raise NbOptError(kept.run.reason)
            if not self._is_open(runtime):
                self._open_baseline(runtime, kept)
        return self._open[runtime.name]

    def _is_open(self, runtime: Runtime) -> bool:
        """Tell whether a baseline's process is there; large batches, or the system, may have ended it."""
        return runtime.name in self._open and self._open[runtime.name].bench.alive

    def _open_baseline(self, runtime: Runtime, kept: Kept) -> Subject:
        assert kept.path is not None
        assert kept.manifest is not None
        # With outputs at hand nothing is asked of the process yet: it loads while the caller goes on.
        bench = self._stack.enter_context(self.bench(kept.path, kept.manifest, wait=kept.raw is None))
        raw = bench.predict(self.workload.report_rows.folder) if kept.raw is None else kept.raw
        subject = self._open[runtime.name] = Subject(bench, raw, size_of(kept.path))
        return subject

    def warm_up(self, runtimes: Sequence[Runtime]) -> None:
        """Start the processes of baselines that were measured before, so that they load during other work."""
        for runtime in runtimes:
            kept = self._known(runtime)
            if kept is not None and kept.path is not None and not self._is_open(runtime):
                self._open_baseline(runtime, kept)

    def prepare(self, runtime: Runtime) -> None:
        """Start the process for a runtime's next artifact, so that it imports its packages while that is made."""
        if runtime.name not in self._spare and not runtime.unavailable(self.workload.framework.family):
            anew = self._budget.processes > 1
            self._spare[runtime.name] = WorkerProcess(self.settings.thread_count, runtime.name, anew=anew)

    def bench(self, path: Path, manifest: Manifest, *, wait: bool = True, alone: bool = False) -> Bench:
        """Open an artifact in a fresh process, or `alone` or not in some, as the budget has it."""
        return Bench(
            path,
            manifest,
            threads=self.settings.thread_count,
            folder=self.workload.report_rows.folder,
            wait=wait,
            instances=self._budget.instances,
            processes=1 if alone else self._budget.processes,
            process=self._spare.pop(manifest.runtime, None),
        )

    def export(self, model: Any, runtime: Runtime, folder: Path) -> Exported:
        """Write a model in a runtime's form into `folder`."""
        path = folder / f"model{runtime.suffix}"
        return self.workload.framework.export(model, self.workload.signature, path, runtime.form)

    def keep_model(self, model: Any) -> str:
        """Keep a framework's model in the store, and return its path there; the user's own is kept as the baseline."""
        if model is self.workload.model:
            kept = self.baseline(self.native)
            if kept.exported is not None:
                self._hold(model, kept.exported, kept.run.artifact)
            return kept.run.artifact
        with self.scratch() as folder:
            exported = self.export(model, self.native, folder)
            artifact = self.store.keep(exported.path, self.manifest(self.native, exported, "float32"))[0]
        self._hold(model, exported, artifact)
        return artifact

    def _hold(self, model: Any, exported: Exported, artifact: str) -> None:
        """Keep a model in memory whose file does not hold it; the user may train the bound one on, so a copy of it."""
        if not exported.holds_model:
            own = model is self.workload.model
            hold_model(self.store.home / artifact, self.workload.framework.clone(model) if own else model)

    def manifest(self, runtime: Runtime, exported: Exported, precision: str) -> Manifest:
        """Return what must be known to run an exported file."""
        signature = self.workload.signature
        device = self._device if runtime.needs_framework else "cpu"
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

    def measure(
        self,
        subject: Subject,
        native: Subject | None,
        same_runtime: Subject | None,
        before: Mapping[str, Subject] | None = None,
        after: str = "",
    ) -> Measurement:
        """Measure one open artifact in turns with its baselines, and with what it was `before` its last steps."""
        what = "measuring"
        return measure_subject(
            subject,
            native=native,
            same_runtime=same_runtime,
            before=before or {},
            last_step=after,
            rows=self.workload.report_rows,
            metric=self.metric,
            margin=self.margin(),
            budget=self.settings.budget,
            threads=self.settings.thread_count,
            seed=self.settings.seed,
            waiting=lambda seconds: self._say(f"waiting for another measurement on this machine, {seconds:.0f} s"),
            on_round=lambda rounds: self.settings.progress(Progress(what, rounds.fraction, 1.0)),
        )

    def margin(self) -> float:
        """Return the acceptable loss in the metric's unit."""
        drop = DEFAULT_DROP if self.settings.max_drop is None else self.settings.max_drop
        native = self._known(self.native)
        return drop if native is None else allowed_drop(native.run, drop)

    def context(self, seed: int, runtimes: Sequence[Runtime] = ()) -> Context:
        """Return what techniques may use.

        Args:
            seed: Seed of everything random.
            runtimes: Where the result will run; a search for a latency tries the last of them.
        """
        allowed = None if self.settings.max_drop is None else self.margin()
        usable = [each for each in runtimes if not each.unavailable(self.workload.framework.family)]
        where = usable[-1] if usable else self.native
        return Context(
            self.workload,
            seed,
            self.settings.progress,
            allowed,
            self.settings.max_size,
            self.settings.max_latency,
            lambda model: self.deployed(model, where),
            f"{where.title} on {self.settings.threads or 'all'} threads",
            self.store.home,
        )

    def deployed(self, model: Any, runtime: Runtime) -> Deployed:
        """Export a model and time it alone, for about half a second: enough to search by, not to report."""
        self.prepare(runtime)
        with self.scratch() as folder:
            exported = self.export(model, runtime, folder)
            manifest = self.manifest(runtime, exported, "float32")
            with self.bench(exported.path, manifest, alone=True) as bench, measuring():
                side = bench.side()
                first = side(1).elapsed_ns
                block = side(max(3, int(TRIAL_NS / max(first, 1.0))))
                median = float(np.median(block.settled))
            return Deployed(runtime.title, size_of(exported.path), median / 1e6)

    @property
    def _budget(self) -> Budget:
        return Budget.of("full" if self.settings.budget == "full" else "quick")

    def _say(self, what: str) -> None:
        self.settings.progress(Progress(what))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder for files on their way into the store."""
        with tempfile.TemporaryDirectory(prefix="nbopt-") as folder:
            yield Path(folder)


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
        chosen = [r for r in found if r.by_default and not r.unavailable(framework.family)]
    elif wanted == "all" or list(wanted) == ["all"]:
        chosen = [r for r in found if framework.family in r.frameworks]
    else:
        names = [wanted] if isinstance(wanted, str) else list(wanted)
        chosen = [r for r in map(runtime_named, names) if r.name != native.name]
    return [native, *chosen]
