"""Comparisons that the tests of the browser show: the sample's runs with layers, and many runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from nbopt import Comparison
from tests.render.sample_runs import BASELINE, ENVIRONMENT, EVERYTHING, run_of

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=\"window.hacked=1\"><svg onload='window.hacked=1'>"


def _layer(name: str, dtype: str) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "Conv",
        "weight_dtype": dtype,
        "compute_dtype": dtype,
        "weight_shape": [16, 8, 3, 3],
        "weights": 1152,
        "zeros": 0,
        "macs": 90_000,
    }


def _with_layers(dtypes: dict[str, str]) -> list[dict[str, Any]]:
    return [_layer(name, dtype) for name, dtype in dtypes.items()]


LAYERED = Comparison(
    dataclasses.replace(
        run,
        audit={
            "layers": _with_layers({"conv1": run.dtype, "conv2": run.dtype, "head": "float32"}),
            "by_count": {run.dtype: 3},
        },
    )
    if not run.failed
    else run
    for run in EVERYTHING
)


def many(count: int) -> Comparison:
    """Return a baseline and runs that differ in each figure."""
    runs = [
        run_of(
            f"quantize/openvino#{i}",
            f"quantize variant {i}",
            quality=0.913 - (i * 37 % 101) / 5000,
            delta=(-(i * 37 % 101) / 5000, -(i * 37 % 101) / 5000 - 0.002, -(i * 37 % 101) / 5000 + 0.002),
            speedup=(1 + i * 53 % 89 / 9, 0.97 * (1 + i * 53 % 89 / 9), 1.04 * (1 + i * 53 % 89 / 9)),
            factors=(1.2, (1 + i * 53 % 89 / 9) / 1.2),
            latency=0.41 / (1 + i * 53 % 89 / 9),
            size_bytes=100_000 + 997 * (i * 7919 % 1201),
            environment={**ENVIRONMENT, "foreign_load": 0.01 * (i % 5)},
        )
        for i in range(count - 1)
    ]
    return Comparison([BASELINE, *runs])
