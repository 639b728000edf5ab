"""Comparison: runs as rows, the Pareto front, and the best run under constraints."""

from __future__ import annotations

import dataclasses
import json
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.bounds import least_speedup, loss_bound, most_speedup, open_speedup, within
from nbopt.conditions import differing_words
from nbopt.errors import ArtifactError, NbOptError, NbOptWarning, OptionError, disk_error, nearest
from nbopt.measurement.verdicts import SIZE_TOLERANCE
from nbopt.runs import Run

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "run", "recipe", "framework", "runtime", "dtype", "metric", "quality", "quality_low", "quality_high",
    "quality_delta", "quality_p", "size_bytes", "params", "nonzero_params", "latency_ms", "latency_low_ms",
    "latency_high_ms", "latency_p90_ms", "cpu_ms", "contention", "speedup", "speedup_low", "speedup_high",
    "speedup_runtime", "speedup_technique", "throughput", "peak_memory_bytes", "train_seconds", "search_seconds",
    "epochs", "cost_usd", "verdict", "reason", "artifact",
)  # fmt: skip

AXES: dict[str, Callable[[Run], float | None]] = {
    # Speedups are paired against one baseline, so they compare across runs where bare milliseconds may not.
    "latency": lambda run: None if not run.speedup else 1 / run.speedup,
    "size": lambda run: run.size_bytes,
    "memory": lambda run: run.peak_memory_bytes,
    "cpu": lambda run: run.cpu_ms,
}
FORMAT = "nbopt.comparison"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Limits:
    """Hold what the user demands of a result; None demands nothing.

    Args:
        max_drop: Quality that may be lost at the interval's bound, as in `Comparison.best`, 0 or more.
        min_speedup: Least speedup at the interval's lower bound, above 0.
        max_size: Largest file in bytes.
        max_latency: Longest median latency of one row in milliseconds.
        max_memory: Highest peak memory in bytes.

    Raises:
        OptionError: A limit is negative.
    """

    max_drop: float | None = None
    min_speedup: float | None = None
    max_size: float | None = None
    max_latency: float | None = None
    max_memory: float | None = None

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if value is not None and not (isinstance(value, (int, float)) and value >= 0):
                raise OptionError(f"{spec.name} as a number of 0 or more", repr(value))

    def reasons(self, run: Run) -> list[str]:
        """Return how a run breaks the limits, figure by figure; nothing where it keeps within them."""
        reasons = [run.verdict] if run.collapsed else []
        if self.max_drop is not None and not within(run, self.max_drop):
            bound = loss_bound(run)
            lost = "not measured" if bound is None else f"may have lost {bound:.4g}"
            reasons.append(f"{run.metric} {lost}")
        if self.min_speedup is not None and least_speedup(run) < self.min_speedup:
            reasons.append(f"speedup {least_speedup(run):.3g} at the bound")
        amounts = (
            (self.max_size, run.size_bytes, "bytes", ",.0f"),
            (self.max_latency, run.latency_ms, "ms", ",.6g"),
            (self.max_memory, run.peak_memory_bytes, "bytes of memory", ",.0f"),
        )
        reasons += [
            f"{value or 0:{places}} {unit}"
            for limit, value, unit, places in amounts
            if limit is not None and (value or 0) > limit
        ]
        return reasons

    def broken_by(self, comparison: Comparison) -> str:
        """Return why no variant of a comparison keeps within the limits, "" where one does or nothing is demanded."""
        if all(getattr(self, spec.name) is None for spec in dataclasses.fields(self)):
            return ""
        variants = [run for run in comparison if not (run.is_baseline or run.is_control)]
        if any(not run.failed and not self.reasons(run) for run in variants):
            return ""
        told = [f"{run.name}: {run.reason if run.failed else ', '.join(self.reasons(run))}" for run in variants]
        return "; ".join(told) or "no variant was measured"

    def __str__(self) -> str:
        names = {"max_latency": "max_latency (ms)", "max_size": "max_size (bytes)", "max_memory": "max_memory (bytes)"}
        given = [(spec.name, getattr(self, spec.name)) for spec in dataclasses.fields(self)]
        written = (
            f"{names.get(n, n)} {v:{',.0f' if 'bytes' in names.get(n, n) else 'g'}}" for n, v in given if v is not None
        )
        return "a run within " + ", ".join(written)


class Comparison:
    """Hold runs of one workload, and choose among them.

    A notebook shows it as a table; `frame()` gives pandas, `best()` and `pareto()` choose, `cmp[name]` gives a run.

    Args:
        runs: Rows in order. Equal names are made unique by `#2`.
    """

    renderer: ClassVar[Callable[[Comparison], dict[str, Any]] | None] = None
    """Set by nbopt.render when it is imported: this module lies below it."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(_unique(runs))

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __add__(self, other: Comparison) -> Comparison:
        """Return both comparisons as one; a run that stands in both stands once."""
        seen: dict[str, Run] = {run.id: run for run in (*self.runs, *other.runs)}
        bare = [dataclasses.replace(run, name=run.kept_name) for run in seen.values()]
        return Comparison(bare)

    def __getitem__(self, name: str) -> Run:
        """Return the run of a name, such as "quantize/openvino".

        Raises:
            OptionError: There is none; the nearest is suggested.
        """
        for run in self.runs:
            if run.name == name:
                return run
        names = [run.name for run in self.runs]
        there = [run.name for run in self.runs if run.name.startswith(f"{name}/") and not run.failed]
        do = f"one of: {', '.join(there)}" if there else nearest(str(name), names)
        raise OptionError("the name of a run in this comparison", repr(name), do)

    def frame(self) -> pd.DataFrame:
        """Return a pandas DataFrame, a row a run, with the columns of `COLUMNS`; units are in their names."""
        import pandas as pd

        rows = [{"run": r.name, **{c: getattr(r, c) for c in COLUMNS if c != "run"}} for r in self.runs]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    @property
    def baseline(self) -> Run | None:
        """Return the untouched model on its own framework."""
        untouched = [r for r in self.runs if r.is_baseline and not r.failed]
        # In rows of several days another runtime's may come first, having been measured again later.
        return next((r for r in untouched if r.is_native), untouched[0] if untouched else None)

    def best(
        self,
        *,
        max_drop: float = 0.01,
        minimize: str = "latency",
        max_size: float | None = None,
        max_latency_ms: float | None = None,
        max_memory: float | None = None,
        runtime: str | None = None,
    ) -> Run:
        """Return the best run whose loss of quality stays within `max_drop` at the interval's bound.

        Where nothing wins the baseline is returned. Runs whose intervals of speed reach the highest lower bound are
        not ranked by speed; among them the smaller file wins, and of files of one size the untouched model. A run
        whose speed the machine was too busy to tell is taken by speed only where no other's is known, and one whose
        outputs collapsed never. Where the runs were measured under different conditions, a warning says so, and a
        note of the run that is returned.

        Args:
            max_drop: Quality that may be lost, 0 or more: absolute for metrics in [0, 1] (0.01 is one point),
                else a share of the baseline's value. The bound of the 95% interval counts, not the estimate.
            minimize: "latency", "size", "memory" or "cpu".
            max_size: Largest file in bytes.
            max_latency_ms: Longest latency in milliseconds.
            max_memory: Highest peak memory in bytes.
            runtime: Take runs of this runtime only.

        Raises:
            OptionError: `minimize` is no axis, `max_drop` is negative, or a limit is no number.
            NbOptError: No run was measured, or the limits leave none.
        """
        best, among = self.choose(
            max_drop=max_drop,
            minimize=minimize,
            max_size=max_size,
            max_latency_ms=max_latency_ms,
            max_memory=max_memory,
            runtime=runtime,
        )
        apart = differing_words(among)
        if not apart:
            return best
        told = f"chosen among runs that were measured under different conditions: {'; '.join(apart)}"
        warnings.warn(f"{best.name} was {told}; measure them again in one session", NbOptWarning, stacklevel=2)
        return dataclasses.replace(best, notes=(*best.notes, told))

    def choose(
        self,
        *,
        max_drop: float = 0.01,
        minimize: str = "latency",
        max_size: float | None = None,
        max_latency_ms: float | None = None,
        max_memory: float | None = None,
        runtime: str | None = None,
    ) -> tuple[Run, list[Run]]:
        """Return what `best` returns, without a word on conditions, and the runs that it was chosen among.

        Raises:
            OptionError: As `best`.
            NbOptError: As `best`.
        """
        if minimize not in AXES:
            raise OptionError(f"minimize among {', '.join(AXES)}", repr(minimize), nearest(str(minimize), AXES))
        given: Any = max_drop  # a notebook's caller has no type checker
        if not (isinstance(given, (int, float)) and given >= 0):
            raise OptionError("max_drop as a number of 0 or more", repr(max_drop), "max_drop=0.01 is one point")
        limits: dict[str, Any] = {"max_size": max_size, "max_latency_ms": max_latency_ms, "max_memory": max_memory}
        for name, limit in limits.items():
            if limit is not None and not isinstance(limit, (int, float)):
                raise OptionError(
                    f"{name} as a number", repr(limit), "bytes for sizes and memory, milliseconds for latency"
                )
        fit = [
            run
            for run in self.runs
            if not (run.failed or run.is_control)
            and within(run, max_drop)
            and (runtime is None or run.runtime == runtime)
            and (max_size is None or (run.size_bytes or 0) <= max_size)
            and (max_latency_ms is None or (run.latency_ms or 0.0) <= max_latency_ms)
            and (max_memory is None or (run.peak_memory_bytes or 0) <= max_memory)
        ]
        scored = [(run, value) for run in fit if (value := AXES[minimize](run)) is not None]
        if not scored:
            raise NbOptError(
                "a run within the limits", f"none of {len(self.runs)} is", "allow a larger max_drop, size or latency"
            )
        # A speed that a busy machine left open would tie with all others: it counts only where all are.
        ranked = [pair for pair in scored if not (minimize == "latency" and open_speedup(pair[0]))] or scored
        best, _ = min(ranked, key=lambda pair: pair[1])
        if minimize == "latency" and best.speedup_low is not None:
            # By the surest speedup, not the largest.
            floor = max(least_speedup(run) for run, _ in ranked)
            ties = [run for run, _ in ranked if most_speedup(run) >= floor]
            smallest = min(run.size_bytes or 0 for run in ties)
            small = [run for run in ties if (run.size_bytes or 0) <= smallest * (1 + SIZE_TOLERANCE)]
            best = min(small, key=lambda run: (not run.is_baseline, run.latency_ms or 0.0))
        return best, [run for run, _ in scored]

    def pareto(self, minimize: str = "latency") -> Comparison:
        """Return the runs that no other of their workload beats on both quality and `minimize`.

        Unknown speeds have no rank.
        """
        if minimize not in AXES:
            raise OptionError(f"minimize among {', '.join(AXES)}", repr(minimize), nearest(str(minimize), AXES))
        points = [
            (run, run.quality if run.greater_is_better else -run.quality, cost)
            for run in self.runs
            if not (run.failed or run.collapsed)
            and run.quality is not None
            and not (minimize == "latency" and open_speedup(run))
            and (cost := AXES[minimize](run)) is not None
        ]
        front = [
            run
            for run, quality, cost in points
            if not any(
                q >= quality and c <= cost and (q > quality or c < cost)
                for other, q, c in points
                if other.workload_key == run.workload_key
            )
        ]
        return Comparison(front)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with its format's name and version."""
        return {"format": FORMAT, "version": FORMAT_VERSION, "runs": [run.to_dict() for run in self.runs]}

    def save(self, path: str | Path) -> Path:
        """Write the comparison's data as JSON (artifacts stay in the store), or its page where `path` ends in .html.

        A file whose name ends in .nbopt.json also has the view, which nbopt's extension of JupyterLab opens as a table.

        Returns:
            The path written.

        Raises:
            StoreError: The place can't be written; a file that was there before stays.
        """
        path = Path(path)
        if path.suffix == ".html":
            html = str(self._repr_mimebundle_()["text/html"])
            text = f"<!doctype html><meta charset='utf-8'><title>nbopt</title>{html}"
        elif path.suffix == ".csv":
            text = self.frame().to_csv(index=False)
        else:
            homes = {run.id: run.home for run in self.runs}
            body = {**self.to_dict(), "homes": homes}
            if path.name.endswith(".nbopt.json"):
                (body["view"],) = (data for kind, data in self._repr_mimebundle_().items() if kind.endswith("+json"))
            text = json.dumps(body, indent=1)
        scratch = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                scratch.write_text(text, encoding="utf-8")
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, path) from error
        return path

    @classmethod
    def read(cls, path: str | Path) -> Comparison:
        """Read what `save` wrote as JSON.

        Raises:
            ArtifactError: The file is not a comparison, or is of a newer nbopt.
        """
        try:
            body = json.loads(Path(path).read_text(encoding="utf-8"))
            if body["format"] != FORMAT:
                raise ValueError(f"its format is {body['format']!r}")
            if body["version"] > FORMAT_VERSION:
                raise ArtifactError(
                    f"a comparison of version {FORMAT_VERSION} or older",
                    f"version {body['version']}, written by a newer nbopt",
                    "pip install --upgrade nbopt",
                )
            homes = body.get("homes", {})
            return cls(Run.from_dict(run, homes.get(run["id"], "")) for run in body["runs"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                "a comparison that cmp.save(path) wrote", f"{path}: {type(error).__name__}: {error}", "save it again"
            ) from error

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if Comparison.renderer is None:
            return {"text/plain": self.frame().to_string()}
        return Comparison.renderer(self)

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])


def without_repeats(runs: Iterable[Run]) -> list[Run]:
    """Return the runs without those that another of them is the mean over."""
    kept = list(runs)
    summed = {member for run in kept for member in run.spread.get("runs", ())}
    return [run for run in kept if run.id not in summed]


def _unique(runs: Iterable[Run]) -> Iterator[Run]:
    counts: dict[str, int] = {}
    for run in runs:
        count = counts[run.name] = counts.get(run.name, 0) + 1
        yield run if count == 1 else dataclasses.replace(run, name=f"{run.name}#{count}")
