"""The conditions of a measurement: processor, instruction sets, threads, quota, versions, the notebook's revision."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

INSTRUCTION_SETS = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "asimddp": "NEON-DOTPROD",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
}
PACKAGES = (
    "nbopt", "numpy", "torch", "keras", "tf-keras", "tensorflow", "onnx", "onnxruntime", "openvino", "nncf",
    "ai-edge-litert", "ai-edge-quantizer", "torch-pruning",
)  # fmt: skip


RANKED_UNDER = {
    "cpu": "CPU",
    "threads": "threads",
    "cpu_quota": "CPU quota",
    "governor": "governor",
    "device": "device",
    "os": "operating system",
    "measure": "measurement",
}
"""Conditions that must be alike for figures to be ranked, beside instruction sets and versions, by their keys."""

GIT_SECONDS = 2.0
REVISION_LASTS_SECONDS = 30.0

_REVISIONS: dict[str, tuple[float, str]] = {}


@cache
def machine() -> dict[str, Any]:
    """Return what does not change while a process runs: CPU, cores, instruction sets, system, versions."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instruction_sets": [name for flag, name in INSTRUCTION_SETS.items() if flag in flags],
        "memory_bytes": memory_bytes(),
        "virtualization": virtualization("hypervisor" in flags),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
    }


def has_exact_int8() -> bool:
    """Tell whether this CPU adds products of int8 in 32 bits; older ones add pairs of them in 16, which saturates."""
    exact = {"AVX512-VNNI", "AVX-VNNI", "AMX-INT8", "NEON-DOTPROD", "I8MM"}
    return bool(exact & set(machine()["instruction_sets"]))


def has_bfloat16() -> bool:
    """Tell whether this CPU multiplies in bfloat16; others convert each number, and are slower than in float32."""
    return bool({"AVX512-BF16", "AMX-BF16", "BF16"} & set(machine()["instruction_sets"]))


def versions() -> dict[str, str]:
    """Return the versions of the packages that figures depend on, of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def governor() -> str:
    """Return the frequency governor of the first core, "" where the system does not tell."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.is_file() else ""


def memory_bytes() -> int:
    """Return the machine's memory in bytes."""
    import psutil

    return int(psutil.virtual_memory().total)


def virtualization(hypervisor: bool) -> str:
    """Return "container", "virtual machine", both, or "" where neither is seen.

    Args:
        hypervisor: The processor says that it is one of a virtual machine.
    """
    marks = ("/.dockerenv", "/run/.containerenv")
    contained = any(Path(mark).exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ
    return " in a ".join(["container"] * contained + ["virtual machine"] * hypervisor)


def cpu_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return how many CPUs' worth of time the container or service may use, 0.0 without a quota.

    Threads beyond it are stopped in turns, so that the same number of threads is another condition.

    Args:
        groups: The file that tells this process's control groups.
        root: Where the control groups are mounted.

    Returns:
        The quota; None where the system does not tell.
    """
    if not groups.is_file():
        return None
    quotas = []
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = root / controllers if controllers else root
        if controllers and not mounted.is_dir():
            mounted = root / "cpu"
        inside = Path(path.lstrip("/"))
        # The tightest of the group and those above it counts; in a namespace of its own the path may not be there.
        quotas += [_quota_of(mounted / part) for part in (inside, *inside.parents)]
    return min((quota for quota in quotas if quota), default=0.0)


def _quota_of(group: Path) -> float:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        elif (group / "cpu.cfs_quota_us").is_file():
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        else:
            return 0.0
        return max(0.0, round(int(quota) / int(period), 3)) if quota != "max" else 0.0
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0  # a file of another form tells nothing


def revision(folder: Path | None = None) -> str:
    """Return the git revision of the notebook's folder: "4dd2c9c", "4dd2c9c-dirty", or "" where there is none.

    Asked again after 30 s at the earliest; git gets 2 s to answer, and where it is missing, slow or refuses the
    folder, that is no error.

    Args:
        folder: The folder; None takes the working folder.
    """
    place = str(folder or Path.cwd())
    known = _REVISIONS.get(place)
    if known is not None and time.monotonic() - known[0] < REVISION_LASTS_SECONDS:
        return known[1]
    found = _ask_git(place)
    _REVISIONS[place] = (time.monotonic(), found)
    return found


def _ask_git(place: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    # No tag's name, no lock on the user's index, and no file system monitor of the repository's own choice.
    command = [git, "-c", "core.fsmonitor=false", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        done = subprocess.run(
            command,
            cwd=place,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def differing(conditions: Iterable[tuple[Mapping[str, Any], Collection[str]]]) -> dict[str, list[str]]:
    """Return the conditions in which measurements differ, each with the values that were met.

    What a measurement does not tell is not counted as a difference.

    Args:
        conditions: Of each measurement what it was made under, and the packages that its figures depend on.
    """
    every = list(conditions)
    found: dict[str, list[str]] = {}
    for key, title in RANKED_UNDER.items():
        values = {str(value) for environment, _ in every if (value := environment.get(key)) not in (None, "")}
        if key == "cpu_quota":
            values = {"no quota" if value == "0.0" else f"{value} CPUs" for value in values}
        if len(values) > 1:
            found[title] = sorted(values)
    sets: list[set[str]] = [
        set(map(str, value))
        for environment, _ in every
        if isinstance(value := environment.get("instruction_sets"), list | tuple)
    ]
    if apart := {name for names in sets for name in names if not all(name in others for others in sets)}:
        found["instruction sets"] = [f"{name} not everywhere" for name in sorted(apart)]
    for package in sorted({package for _, packages in every for package in packages}):
        used = [environment.get("versions") for environment, packages in every if package in packages]
        values = {str(versions[package]) for versions in used if isinstance(versions, dict) and versions.get(package)}
        if len(values) > 1:
            found[package] = sorted(values)
    return found


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
