"""What was measured, as runs: the conditions, the figures, the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbopt.artifacts import available_threads, deflated_size, size_of
from nbopt.errors import NbOptError
from nbopt.measurement import verdicts
from nbopt.measurement.audit import shortfall
from nbopt.measurement.collapse import explained
from nbopt.measurement.environment import cpu_quota, governor, machine, revision
from nbopt.measurement.lock import measuring
from nbopt.measurement.metrics import Metric
from nbopt.measurement.peak import peaks as machine_peaks
from nbopt.measurement.subject import Measurement, Subject
from nbopt.progress import ProgressCallback, silent
from nbopt.runs import CONTROL, Run
from nbopt.runtimes import Runtime
from nbopt.workload import Workload


@dataclass(frozen=True)
class Settings:
    """Say how to measure.

    Args:
        budget: "quick" or "full".
        threads: Threads of one inference in every runtime; None takes the cores that this process may use.
        max_drop: Loss of quality that is acceptable.
        seed: Seed of everything random.
        progress: Told how far the work has come.
        max_size: Largest file in bytes that is acceptable.
        max_latency: Longest latency of one row in milliseconds that is acceptable.
    """

    budget: str = "quick"
    threads: int | None = None
    max_drop: float | None = None
    seed: int = 0
    progress: ProgressCallback = silent
    max_size: float | None = None
    max_latency: float | None = None

    @property
    def thread_count(self) -> int:
        """Return the number of threads."""
        return self.threads or available_threads()


@dataclass(frozen=True)
class Recorder:
    """Write runs of one workload.

    Args:
        workload: The user's model and data.
        metric: What quality is.
        digest: Content hash of model, reporting rows and metric.
        settings: How it is measured.
        home: Folder of the store that artifacts lie in.
    """

    workload: Workload
    metric: Metric
    digest: str
    settings: Settings
    home: Path

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
            "max_drop": self.settings.max_drop,
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
        asked: str = "",
        **more: Any,
    ) -> Run:
        """Return the row of what was measured.

        Args:
            recipe: The recipe as one line of text.
            label: The recipe as a table writes it.
            runtime: Where it was measured.
            subject: The artifact in its process.
            measured: Its figures.
            artifact: Its path below the store's home, and its SHA-256.
            notes: What a reader must know.
            counts: Parameters, and those that are not zero.
            words: The recipe's words, as the run's name has them.
            asked: Precision that the recipe asked for, "" where it asked for none.
            more: Further fields of the run.
        """
        path = self.home / artifact[0]
        size, deflated = size_of(path), deflated_size(path)
        quality, latency = measured.quality, measured.latency
        difference = None if quality.difference is None else quality.difference.interval
        speedup, technique = measured.speedup, measured.technique
        baseline = recipe == "baseline"
        native = measured.speedup is None
        done = label if recipe.startswith(CONTROL) else f"{recipe} {label}"
        reason = explained(quality.symptom, done, runtime.name, bool(more.get("epochs")), self.workload)
        reason = reason or shortfall(measured.audit, asked)
        if measured.audit.unread:
            notes = (*notes, f"not audited layer by layer: {measured.audit.unread}")
        if not native and not baseline and technique is None:
            why = f"the untouched model does not run on {runtime.title}"
            notes = (*notes, f"what of the speedup is the runtime's is not known: {why}")
        phrase = "baseline" if native else verdicts.phrase(measured.verdicts, self.metric.name, runtime_only=baseline)
        common = self._common(recipe, label, runtime)
        if measured.foreign is not None:
            common["environment"]["foreign_load"] = round(measured.foreign, 2)
        return Run(
            **{**common, **more},
            name=f"{words}/{runtime.name}",
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
            speedup_technique=1.0 if baseline else None if technique is None else technique.value,
            throughput=measured.throughput,
            throughput_batch=measured.throughput_batch,
            throughputs={str(batch): rate for batch, rate in measured.throughputs.items()},
            load_ms=subject.bench.loaded.load_ms,
            first_inference_ms=subject.bench.loaded.first_ms,
            peak_memory_bytes=subject.bench.loaded.peak_bytes,
            macs=measured.audit.macs or None,
            peak_share=self._peak_share(runtime, measured),
            audit=measured.audit.to_dict(),
            steps=tuple(step.to_dict() for step in measured.steps),
            verdicts=measured.verdicts,
            verdict=reason.split(";")[0] if quality.symptom else phrase,
            reason=reason,
            notes=tuple(notes),
            artifact=artifact[0],
            artifact_sha256=artifact[1],
        )

    def _peak_share(self, runtime: Runtime, measured: Measurement) -> float | None:
        """Return how much of the machine's own peak an artifact reaches, in [0, 1]; None where that is not known.

        What it would take at the peak of each precision that its multiply-accumulates run in, over its latency.
        """
        device = self.workload.framework.device(self.workload.model) if runtime.needs_framework else "cpu"
        shares = measured.audit.mac_shares
        if not measured.audit.macs or device != "cpu":
            return None
        with measuring():  # the first time on a machine, it is measured now
            peaks = machine_peaks(self.settings.thread_count)
        if not shares.keys() <= peaks.keys():
            return None
        seconds = sum(measured.audit.macs * share / peaks[precision] for precision, share in shares.items())
        return min(1.0, seconds * 1e3 / measured.latency.median)


def _runtime_share(speedup: Any, technique: Any, baseline: bool) -> float | None:
    if baseline:
        return float(speedup.value)
    return None if technique is None else float(speedup.value / technique.value)


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
