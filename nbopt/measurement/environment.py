"""The conditions of a measurement: processor, instruction sets, threads, versions."""

from __future__ import annotations

import os
import platform
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
    "nbopt", "numpy", "torch", "keras", "tensorflow", "onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert",
    "ai-edge-quantizer", "torch-pruning",
)  # fmt: skip


@cache
def machine() -> dict[str, Any]:
    """Return what does not change while a process runs: CPU, cores, instruction sets, system, versions."""
    info = _cpuinfo()
    flags = set(info.get("flags", info.get("Features", "")).split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "instruction_sets": [name for flag, name in INSTRUCTION_SETS.items() if flag in flags],
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions(),
    }


def has_exact_int8() -> bool:
    """Tell whether this CPU adds products of int8 in 32 bits; older ones add pairs of them in 16, which saturates."""
    exact = {"AVX512-VNNI", "AVX-VNNI", "AMX-INT8", "NEON-DOTPROD", "I8MM"}
    return bool(exact & set(machine()["instruction_sets"]))


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


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text().split("\n\n")[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
