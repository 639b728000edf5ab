"""Untouched models that were measured, kept for as long as their workload is, for any stage of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from nbopt.frameworks import Exported
from nbopt.runs import Run
from nbopt.runtimes import Manifest
from nbopt.workload import Workload


@dataclass
class Kept:
    """Hold a baseline: its run, its artifact in the store, and its outputs.

    Args:
        run: Its row; failed where a runtime could not take the model.
        path: The artifact; None where it failed.
        manifest: How to run it.
        exported: What the export gave.
        raw: Outputs for the reporting rows; None where they are to be had from the artifact.
        refused: No export of this model will do: another try would end as this one did.
    """

    run: Run
    path: Path | None = None
    manifest: Manifest | None = None
    exported: Exported | None = None
    raw: Any = None
    refused: bool = False


@dataclass(frozen=True)
class Key:
    """Say what a baseline was measured as; the content hash is of model, reporting rows and metric."""

    runtime: str
    threads: int
    digest: str
    home: str
    device: str


@dataclass
class Baselines:
    """Keep a workload's baselines by what they were measured as.

    Args:
        controls: Rows of the untouched model after a training, by that and by how they were measured.
    """

    controls: dict[Hashable, Run] = field(default_factory=dict)
    _kept: dict[Key, Kept] = field(default_factory=dict)

    def find(self, key: Key, budget: str) -> Kept | None:
        """Return what serves a budget: measured by that or for longer, its artifact still there; None without one."""
        kept = self._kept.get(key)
        if kept is None or kept.refused:
            return kept
        there = kept.path is not None and kept.path.exists()
        return kept if there and (budget != "full" or kept.run.environment["measure"] == "full") else None

    def keep(self, key: Key, kept: Kept) -> None:
        """Keep a baseline. What went wrong once, but for what no export can do, may go well the next time."""
        if kept.path is not None or kept.refused:
            self._kept[key] = kept
            for other, older in self._kept.items():
                if other.digest != key.digest:
                    older.raw = None  # of a model that was trained on since: to be had from its artifact


_BASELINES: WeakKeyDictionary[Workload, Baselines] = WeakKeyDictionary()


def baselines_of(workload: Workload) -> Baselines:
    """Return what is kept for a workload."""
    return _BASELINES.setdefault(workload, Baselines())
