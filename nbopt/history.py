"""What the store keeps, for people: the list of runs, the latest of each kind, and a run by its name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from nbopt.comparison import Comparison, without_repeats
from nbopt.errors import NbOptError, NbOptWarning, OptionError, nearest
from nbopt.ledger import default_home
from nbopt.render import figures
from nbopt.render.layers import layers_html, layers_text
from nbopt.render.search import search_html, search_text
from nbopt.render.sensitivity import sensitivity_html, sensitivity_text
from nbopt.runs import Run, RunStore
from nbopt.sheet import Sheet, bundle

SHORTEST_ID = 4
FIRST = "%optimize use model --train train_dl --valid valid_dl"


def kept_runs(workload_key: str | None = None) -> list[Run]:
    """Return the store's runs, oldest first, of one workload or of all; no folder is made by asking.

    Raises:
        StoreError: The store is damaged or can't be read.
    """
    if not (default_home() / "runs.sqlite").exists():
        return []
    return RunStore().runs(workload_key)


def latest(runs: Iterable[Run]) -> list[Run]:
    """Return the newest run of each workload, recipe, runtime and seed: baselines first, its own the first, by age.

    Where a row is a mean over seeds, it stands for the runs of those seeds.

    Args:
        runs: Runs, oldest first.
    """
    newest: dict[tuple[str, str, str, int, tuple[int, ...]], Run] = {}
    for run in runs:
        key = (run.workload_key, run.recipe, run.runtime, 0 if run.is_baseline else run.seed, run.seeds)
        # Taken out first, so that the order is that of the newest, not of the first.
        newest.pop(key, None)
        newest[key] = run
    return sorted(without_repeats(newest.values()), key=lambda run: (not run.is_native, not run.is_baseline))


def of_workload(runs: Sequence[Run], wanted: str) -> list[Run]:
    """Return the runs of a workload, named by its name or by the first letters of its key.

    Raises:
        OptionError: There is no such workload.
    """
    found = [run for run in runs if run.workload == wanted]
    if not found and len(wanted) >= SHORTEST_ID:
        found = [run for run in runs if run.workload_key.startswith(wanted)]
    if not found:
        names = {run.workload for run in runs}
        raise OptionError("a workload that has runs", repr(wanted), nearest(wanted, names) if names else FIRST)
    return found


def newest_workload(runs: Sequence[Run]) -> list[Run]:
    """Return the runs of the workload that was worked on last."""
    return [run for run in runs if run.workload_key == runs[-1].workload_key] if runs else []


def compared(runs: Sequence[Run], names: Sequence[str] = ()) -> Comparison:
    """Return the newest run of each kind as a comparison, or those named beside their baselines.

    Args:
        runs: Runs, oldest first.
        names: Names of runs (`quantize/openvino`), of recipes (`prune+quantize`), or first letters of ids.

    Raises:
        NbOptError: There are no runs.
        OptionError: A name fits none.
    """
    if not runs:
        raise NbOptError("runs to compare", "none is kept here yet", FIRST)
    every = numbered(latest(runs))
    if not names:
        return Comparison(every)
    wanted: dict[str, Run] = {run.id: run for run in every if run.is_baseline}
    for name in names:
        wanted |= {run.id: run for run in named(runs, name)}
    return Comparison(wanted.values())


def numbered(runs: Sequence[Run]) -> list[Run]:
    """Return runs, oldest first, under names of their own: the newest has a name alone, older ones are `#2`, `#3`."""
    return list(Comparison(reversed(runs)))[::-1]


def named(runs: Sequence[Run], name: str) -> list[Run]:
    """Return the runs that a name means: the first letters of an id, the name of a run, or a recipe.

    Args:
        runs: Runs, oldest first.
        name: The name; of several runs that have it, it means the newest, and `NAME#2` the one before.

    Raises:
        OptionError: It fits none; the nearest is suggested.
    """
    by_id = [run for run in runs if len(name) >= SHORTEST_ID and run.id.startswith(name)]
    if by_id:
        return by_id
    unique = {run.name: run for run in numbered(latest(runs))}
    if name in unique:
        return [unique[name]]
    words = [run for run in unique.values() if name in (run.kept_name.rpartition("/")[0], run.recipe, run.label)]
    if words:
        return words
    raise OptionError("the name of a run that is kept", repr(name), nearest(name, unique) if unique else FIRST)


def run_named(runs: Sequence[Run], name: str) -> Run:
    """Return the one run that a name means; where several have it, a warning says which was taken.

    Raises:
        OptionError: It fits none, or several.
    """
    found = named(runs, name)
    if len(found) > 1:
        names = ", ".join(run.id[:8] if run.id.startswith(name) else run.name for run in found)
        raise OptionError("the name of one run", f"{name!r}, which fits {len(found)}", f"one of: {names}")
    (run,) = found
    alike = [each for each in latest(runs) if each.kept_name == name]
    if len(alike) > 1:
        taken = f"{len(alike)} runs are named {name}; taken is the newest: {run.label}, {run.id[:8]}"
        warnings.warn(f"{taken}. %optimize runs lists the ids of all", NbOptWarning, stacklevel=2)
    return run


def told(run: Run) -> str:
    """Return a run as a person can tell it from others: its name, its recipe, the first letters of its id."""
    return f"{run.name}: {run.label}, {run.id[:8]}"


@dataclass(frozen=True)
class RunList:
    """Hold runs as a list that a notebook or a terminal shows, newest first.

    Args:
        runs: The runs, newest first.
        by_workload: Tell of each run what it is a run of.
    """

    runs: tuple[Run, ...]
    by_workload: bool = False

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, name: str) -> Run:
        return run_named(self.runs[::-1], name)

    def sheet(self) -> Sheet:
        """Return it as a table."""
        if not self.runs:
            return Sheet("no runs are kept here yet", note=f"{default_home()} is where they will be")
        header = (
            "when",
            "id",
            *(("workload",) if self.by_workload else ()),
            "run",
            "seed",
            "quality",
            "change",
        )
        names = {run.workload for run in self.runs}
        what = "" if self.by_workload or len(names) > 1 else f" of {self.runs[0].workload}"
        count = len(self.runs)
        return Sheet(
            f"{count} run{'s' if count > 1 else ''}{what}, newest first",
            (*header, "size", "speedup", "verdict"),
            tuple(self._words(run) for run in self.runs),
            f"kept in {self.runs[0].home}",
        )

    def _words(self, run: Run) -> tuple[str, ...]:
        first = (
            local_time(run.created),
            run.id[:8],
            *((run.workload,) if self.by_workload else ()),
            run.name,
        )
        if run.failed:
            return (*first, str(run.seed), "failed", "", "", "", run.reason)
        return (
            *first,
            str(run.seed),
            f"{figures.quality(run).value} {run.metric}",
            "-" if run.quality_delta is None else f"{figures.change(run).value}{figures.change_unit(run)}",
            size_text(run.size_bytes),
            str(figures.speedup(run)),
            run.verdict or ("baseline" if run.is_baseline else ""),
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle([self.sheet()])

    def __repr__(self) -> str:
        return self.sheet().text()


def run_list(runs: Sequence[Run], *, by_workload: bool = False) -> RunList:
    """Return runs, oldest first as the store gives them, as a list that shows itself newest first."""
    return RunList(tuple(reversed(runs)), by_workload)


def size_text(count: float | None) -> str:
    """Return bytes as text: 1.35 MB."""
    return figures.unit_of([count]).text(count)


def local_time(stamp: str) -> str:
    """Return a stored time in the reader's time zone, to the second."""
    try:
        return datetime.fromisoformat(stamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return stamp


@dataclass(frozen=True)
class RunCard:
    """Hold one run as a sheet of all that is known of it.

    Args:
        run: The run.
    """

    run: Run

    def sheet(self) -> Sheet:
        """Return it as pairs of words; what was not measured is left out."""
        run = self.run
        seconds = {"trained": run.train_seconds, "searched": run.search_seconds}
        memory = {"deflated": run.deflated_bytes, "peak memory": run.peak_memory_bytes}
        pairs = [
            ("run", f"{run.name} ({run.id[:8]}, {local_time(run.created)})"),
            ("recipe", f"{run.recipe}, seed {run.seed}"),
            ("workload", f"{run.workload} ({run.framework}, {run.workload_key[:8]})"),
            ("state", f"failed: {run.reason}" if run.failed else run.verdict or run.status),
            ("why", "" if run.failed else run.reason),
            (run.metric or "quality", _quality_text(run)),
            ("latency", _measured(figures.latency(run), "ms")),
            ("speedup", _speedup_text(run)),
            *(("step", f"{step['words']}: {figures.step_gains(run, step)}") for step in run.steps),
            ("seeds", ", ".join(map(str, run.seeds))),
            ("of the peak", figures.percent(run.peak_share) if run.peak_share is not None else ""),
            ("size", size_text(run.size_bytes) if run.size_bytes else ""),
            *((name, size_text(value) if value else "") for name, value in memory.items()),
            ("parameters", _parameters_text(run)),
            (
                "precision",
                ", ".join(filter(None, (run.dtype, run.precision and f"executed in {run.precision}"))),
            ),
            *((name, f"{value:.1f} s" if value else "") for name, value in seconds.items()),
            ("epochs", str(run.epochs) if run.epochs else ""),
            *(("note", note) for note in run.notes),
            ("machine", _machine_text(run.environment)),
            ("artifact", f"{run.home}/{run.artifact}" if run.artifact else ""),
        ]
        return Sheet(rows=tuple((name, words) for name, words in pairs if words))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        shown = bundle([self.sheet()])
        run = self.run
        more = search_html(run.search) + sensitivity_html(run.sensitivity) + layers_html(run.audit)
        return {**shown, "text/plain": repr(self), "text/html": shown["text/html"] + more}

    def __repr__(self) -> str:
        run = self.run
        more = (search_text(run.search), sensitivity_text(run.sensitivity), layers_text(run.audit))
        return "\n\n".join(filter(None, (self.sheet().text(), *more)))


def _measured(value: figures.Figure, unit: str) -> str:
    return "" if value == figures.NOTHING else f"{value.value} {unit} {value.bounds}".rstrip()


def _quality_text(run: Run) -> str:
    if run.quality is None:
        return ""
    change = "" if run.quality_delta is None else f", {figures.change(run)}{figures.change_unit(run)} from the baseline"
    return f"{figures.quality(run)} on {run.rows:,} rows of {run.split}{change}"


def _speedup_text(run: Run) -> str:
    if run.speedup is None:
        return ""
    shares = [
        f"{figures.share_of_speedup(run, factor)}x {name}"
        for name, factor in (("runtime", run.speedup_runtime), ("technique", run.speedup_technique))
        if factor is not None
    ]
    return f"{figures.speedup(run)}{' = ' if shares else ''}{' x '.join(shares)}"


def _parameters_text(run: Run) -> str:
    if run.params is None:
        return ""
    nonzero = f", {run.nonzero_params:,} of them not zero" if run.nonzero_params not in (None, run.params) else ""
    return f"{run.params:,}{nonzero}"


def _machine_text(environment: dict[str, Any]) -> str:
    words = [
        environment.get("cpu", ""),
        f"{environment['threads']} threads" if environment.get("threads") else "",
    ]
    return ", ".join(word for word in map(str, words) if word)


def renamed(run: Run) -> Run:
    """Return the run under the name that it was kept with."""
    return replace(run, name=run.kept_name)
