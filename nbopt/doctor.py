"""What this machine has: processor, runtimes, frameworks, the store; and what to do about what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nbopt.errors import NbOptError
from nbopt.frontend import parts, this_front_end
from nbopt.history import size_text
from nbopt.ledger import default_home
from nbopt.measurement.environment import governor, machine
from nbopt.runs import RunStore
from nbopt.runtimes import all_runtimes
from nbopt.sheet import Sheet, bundle

FRAMEWORK_EXTRAS = {"torch": "torch", "keras": "tensorflow", "tensorflow": "tensorflow"}
LITTLE_DISK = 1_000_000_000
NOTEBOOK_PACKAGES = ("ipython", "ipykernel", "jupyterlab", "ipywidgets", "papermill", "nbconvert")


@dataclass(frozen=True)
class Check:
    """Hold one thing that was looked at.

    Args:
        name: What it is.
        state: What was found.
        ok: It can be used.
        do: What to do where it can't.
    """

    name: str
    state: str
    ok: bool = True
    do: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Hold all that was looked at, in sections.

    Args:
        machine: Processor, instruction sets, threads, system.
        frameworks: PyTorch, Keras, TensorFlow.
        runtimes: Each way to execute a model.
        notebook: Packages of the notebook, and what runs this.
        store: Where runs are kept.
    """

    machine: tuple[Check, ...]
    frameworks: tuple[Check, ...]
    runtimes: tuple[Check, ...]
    notebook: tuple[Check, ...]
    store: tuple[Check, ...]

    @property
    def sections(self) -> dict[str, tuple[Check, ...]]:
        """Return the sections by their title."""
        return {
            "this machine": self.machine,
            "frameworks": self.frameworks,
            "runtimes": self.runtimes,
            "notebook": self.notebook,
            "store of runs": self.store,
        }

    @property
    def ok(self) -> bool:
        """Tell whether nbopt can work: one framework and the store are usable."""
        return any(check.ok for check in self.frameworks) and all(check.ok for check in self.store)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            title: [{"name": c.name, "state": c.state, "ok": c.ok, "do": c.do} for c in checks]
            for title, checks in self.sections.items()
        }

    def sheets(self) -> list[Sheet]:
        """Return a table for each section."""
        return [
            Sheet(title, rows=tuple((c.name, f"{c.state}{f' -> {c.do}' if c.do else ''}") for c in checks))
            for title, checks in self.sections.items()
        ]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.sheets())

    def __repr__(self) -> str:
        return str(bundle(self.sheets())["text/plain"])


def diagnose() -> Diagnosis:
    """Look at this machine; no framework is imported by it."""
    return Diagnosis(_machine(), _frameworks(), _runtimes(), _notebook(), _store())


def _machine() -> tuple[Check, ...]:
    found = machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = load > 0.5 * usable
    checks = [
        Check("processor", str(found["cpu"])),
        Check(
            "instruction sets",
            ", ".join(found["instruction_sets"]) or "none that inference gains from is known",
        ),
        Check("cores", f"{usable} usable of {found['cores']}"),
        Check("system", f"{found['os']}, Python {found['python']}, nbopt {found['versions'].get('nbopt', '')}"),
        Check(
            "load",
            f"{load:.1f} in the last minute",
            not busy,
            "other work is running: latency is less certain while it does" if busy else "",
        ),
    ]
    if speed := governor():
        checks.append(Check("frequency governor", speed))
    return tuple(checks)


def _frameworks() -> tuple[Check, ...]:
    return tuple(_package(name, f'pip install "nbopt[{extra}]"') for name, extra in FRAMEWORK_EXTRAS.items())


def _package(name: str, do: str) -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "not installed", False, do)
    return Check(name, f"{found}{', imported' if name in sys.modules else ''}")


def _runtimes() -> tuple[Check, ...]:
    checks = []
    for runtime in all_runtimes().values():
        missing = runtime.unavailable()
        if missing:
            reason, _, command = missing.partition("pip install")
            do = f"pip install{command}" if command else ""
            checks.append(Check(runtime.title, reason.strip(" :,"), False, do))
        else:
            use = "" if runtime.by_default else f", used with --runtimes {runtime.name}"
            models = " and ".join(runtime.frameworks)
            checks.append(Check(runtime.title, f"{runtime.version()}, for models of {models}{use}".lstrip(", ")))
    return tuple(checks)


def _notebook() -> tuple[Check, ...]:
    where = this_front_end()
    packages = [_package(name, 'pip install "nbopt[notebook]"') for name in NOTEBOOK_PACKAGES]
    seen = [Check(part.name, part.state, part.ok, part.do) for part in parts(where)]
    return (Check("front end", where.state, True, where.do), *seen, *packages)


def _store() -> tuple[Check, ...]:
    home = default_home()
    exists = (home / "runs.sqlite").exists()
    checks = [Check("folder", f"{home}{'' if os.environ.get('NBOPT_HOME') else ' (NBOPT_HOME moves it)'}")]
    try:
        count = len(RunStore().runs()) if exists else 0
        state = f"{count:,} run{'' if count == 1 else 's'}" if exists else "none yet: the first run makes it"
        checks.append(Check("runs", state))
    except NbOptError as error:
        checks.append(Check("runs", error.came or str(error), False, error.do))
    base = _existing(home)
    if not os.access(base, os.W_OK):
        do = "set NBOPT_HOME to a folder that can be written"
        checks.append(Check("write access", f"{base} can't be written", False, do))
    free = shutil.disk_usage(base).free
    little = free < LITTLE_DISK
    checks.append(Check("free disk", size_text(free), not little, "free some space before training" if little else ""))
    return tuple(checks)


def _existing(path: Path) -> Path:
    """Return the nearest folder above that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
