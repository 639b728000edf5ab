"""Whether runs were measured alike: what a ranking of them rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nbopt.measurement.environment import differing
from nbopt.runs import Run
from nbopt.runtimes import all_runtimes

SHOWN = 4
SHOWN_CHARACTERS = 30


def differing_words(runs: Iterable[Run]) -> list[str]:
    """Return the conditions in which measured runs differ, with values: "threads (1, 2)"; nothing where all agree.

    Versions count where a run depends on them: those of its runtime, and of the framework that its baseline ran in.
    """
    packages = {name: {word.replace("_", "-") for word in kind.packages} for name, kind in all_runtimes().items()}
    found = differing(
        (_environment(run), packages.get(run.runtime, set()) | _of_framework(run.framework))
        for run in runs
        if not run.failed
    )
    return [f"{title} ({', '.join(_short(value) for value in values[:SHOWN])})" for title, values in found.items()]


def _environment(run: Run) -> Mapping[str, object]:
    """Return what a run was measured under; a baseline that took longer stands as well beside what took less."""
    longer = run.is_baseline and run.environment.get("measure") == "full"
    return {**run.environment, "measure": ""} if longer else run.environment


def _of_framework(name: str) -> set[str]:
    """Return the packages of a framework: the baseline that a speedup is paired with runs in it."""
    return {name.replace("_", "-")} | ({"tensorflow"} if "keras" in name else set())


def _short(value: str) -> str:
    line = " ".join(value.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 2]}.."
