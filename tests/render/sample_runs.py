"""Runs for the tests of render, built by hand: no model, no measurement."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from nbopt.comparison import Comparison
from nbopt.runs import Run

ENVIRONMENT = {
    "cpu": "Xeon of some kind",
    "instruction_sets": ["AVX2", "AVX512", "AVX512-VNNI"],
    "threads": 2,
    "versions": {"torch": "2.13.0", "onnxruntime": "1.32.0"},
    "os": "Linux",
    "python": "3.11.2",
    "shared_rows": 0,
    "measure": "quick",
}


def run_of(
    name: str,
    label: str = "",
    *,
    quality: float = 0.913,
    delta: tuple[float, float, float] | None = None,
    speedup: tuple[float, float, float] | None = None,
    factors: tuple[float, float] | None = None,
    latency: float = 0.41,
    **more: Any,
) -> Run:
    recipe, runtime = name.split("#", maxsplit=1)[0].rsplit("/", 1)
    fields: dict[str, Any] = {
        "id": name,
        "created": "2026-11-23T18:00:00.000+00:00",
        "name": name,
        "workload": "fashion-cnn",
        "workload_key": "key",
        "recipe": recipe,
        "label": label or recipe,
        "framework": "torch",
        "runtime": runtime,
        "dtype": "float32",
        "precision": "float32",
        "metric": "accuracy",
        "split": "test",
        "rows": 10_000,
        "quality": quality,
        "quality_low": quality - 0.0055,
        "quality_high": quality + 0.0055,
        "size_bytes": 1_350_000,
        "deflated_bytes": 1_240_000,
        "params": 337_000,
        "nonzero_params": 337_000,
        "latency_ms": latency,
        "latency_low_ms": latency * 0.97,
        "latency_high_ms": latency * 1.03,
        "latency_p90_ms": latency * 1.2,
        "latency_p99_ms": latency * 1.6,
        "cpu_ms": latency * 1.9,
        "contention": 1.01,
        "throughput": 9000.0,
        "throughput_batch": 32,
        "load_ms": 12.3,
        "first_inference_ms": 1.7,
        "peak_memory_bytes": 50_000_000,
        "artifact": "artifacts/0123/model.onnx",
        "environment": ENVIRONMENT,
    }
    if delta:
        fields |= dict(zip(("quality_delta", "quality_delta_low", "quality_delta_high"), delta, strict=True))
        fields |= {"quality_p": 0.21, "agreement": 0.9871, "max_error": 0.31}
    if speedup:
        fields |= dict(zip(("speedup", "speedup_low", "speedup_high"), speedup, strict=True))
        runtime_share, technique_share = factors or (speedup[0], 1.0)
        fields |= {"speedup_runtime": runtime_share, "speedup_technique": technique_share}
    return Run(**{**fields, **more})


def failed(name: str, label: str, reason: str, **more: Any) -> Run:
    recipe, runtime = name.split("#", maxsplit=1)[0].rsplit("/", 1)
    fields = {"id": name, "created": "2026-11-23T18:00:00.000+00:00", "workload": "fashion-cnn"}
    fields |= {"name": name, "recipe": recipe, "label": label, "runtime": runtime, "metric": "accuracy"}
    fields |= {"workload_key": "key", "framework": "torch", "status": "failed", "reason": reason, **more}
    return Run(**fields)


BASELINE = run_of("baseline/torch", speedup=(1.0, 1.0, 1.0))
ON_ORT = run_of("baseline/onnxruntime", delta=(0, 0, 0), speedup=(2.0, 1.91, 2.1), latency=0.204, size_bytes=1_330_000)
INT8 = run_of(
    "quantize/openvino", "quantize int8 static", quality=0.912, delta=(-0.001, -0.003, 0.001), dtype="int8",
    speedup=(3.1, 3.0, 3.3), factors=(1.9, 1.63), latency=0.131, size_bytes=346_000, precision="int8",
    notes=("calibrated on 512 rows of train",),
)  # fmt: skip
MASKED = run_of(
    "prune/openvino", "prune 0.5 unstructured", quality=0.912, delta=(-0.0006, -0.0019, 0.0008), latency=0.215,
    speedup=(1.9, 1.85, 1.96), factors=(1.9, 1.0), size_bytes=1_330_000, nonzero_params=168_500,
    reason="zeros do not help dense kernels",
)  # fmt: skip
SLOWER = run_of(
    "quantize/litert", "quantize int8 dynamic", quality=0.912, delta=(-0.0007, -0.0022, 0.0009), dtype="int8",
    speedup=(0.17, 0.164, 0.175), factors=(1.2, 0.14), latency=2.48, size_bytes=350_000,
    notes=("calibrated on 512 rows of train", "LiteRT keeps activations in float32"),
)  # fmt: skip
STUDENT = run_of(
    "distill/onnxruntime", "distill to a small CNN", quality=0.904, delta=(-0.009, -0.0127, -0.0053),
    speedup=(20, 19, 21), factors=(2, 10), latency=0.021, size_bytes=30_000,
)  # fmt: skip
REFUSED = failed("quantize/litert#2", "quantize int8 static", "operator X is not supported: export float")

EVERYTHING = Comparison([BASELINE, ON_ORT, INT8, MASKED, SLOWER, STUDENT, REFUSED])
NOTHING_WINS = Comparison([BASELINE, SLOWER, STUDENT, REFUSED])

HOSTILE = "<script>alert(1)</script>\n</td>\"'&amp; \u202e\x1b[31m𝔘名前\t%s {x}"


def with_metric(run: Run, scale: float = 4.0) -> Run:
    """Return a run as of a regression whose lower values are better."""
    import dataclasses

    def times(value: float | None) -> float | None:
        return None if value is None else value * scale

    return dataclasses.replace(
        run,
        metric="rmse",
        bounded=False,
        greater_is_better=False,
        workload="houses",
        quality=times(run.quality),
        quality_low=times(run.quality_low),
        quality_high=times(run.quality_high),
        # A loss is now an increase.
        quality_delta=times(None if run.quality_delta is None else -run.quality_delta),
        quality_delta_low=times(None if run.quality_delta_high is None else -run.quality_delta_high),
        quality_delta_high=times(None if run.quality_delta_low is None else -run.quality_delta_low),
    )


def without_labels(run: Run) -> Run:
    """Return a run as of data without labels: fidelity only."""
    import dataclasses

    gone: dict[str, Any] = dict.fromkeys(
        ("quality", "quality_low", "quality_high", "quality_delta", "quality_delta_low", "quality_delta_high")
    )
    return dataclasses.replace(run, metric="", split="", **gone)


_ANY = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.just(math.nan))
_COUNT = st.one_of(st.none(), st.integers(0, 10**15))
# Hypothesis also draws constants of the code under test, and a user's own "nan" in a name is no figure that is NaN.
_TEXT = st.one_of(st.just(HOSTILE), st.text(max_size=40).filter(lambda text: "nan" not in text.lower()))

any_run = st.builds(
    Run,
    name=_TEXT,
    workload=st.sampled_from(["a", HOSTILE]),
    recipe=st.sampled_from(["baseline", "quantize", HOSTILE]),
    label=_TEXT,
    framework=_TEXT,
    runtime=st.sampled_from(["openvino", "onnxruntime", "", HOSTILE]),
    status=st.sampled_from(["ok", "ok", "failed"]),
    dtype=_TEXT,
    precision=_TEXT,
    metric=st.sampled_from(["accuracy", "rmse", "", HOSTILE]),
    greater_is_better=st.booleans(),
    bounded=st.booleans(),
    split=_TEXT,
    rows=st.integers(0, 10**9),
    quality=_ANY,
    quality_low=_ANY,
    quality_high=_ANY,
    quality_delta=_ANY,
    quality_delta_low=_ANY,
    quality_delta_high=_ANY,
    quality_p=_ANY,
    agreement=_ANY,
    max_error=_ANY,
    size_bytes=_COUNT,
    deflated_bytes=_COUNT,
    params=_COUNT,
    nonzero_params=_COUNT,
    latency_ms=_ANY,
    latency_low_ms=_ANY,
    latency_high_ms=_ANY,
    contention=_ANY,
    speedup=_ANY,
    speedup_low=_ANY,
    speedup_high=_ANY,
    speedup_runtime=_ANY,
    speedup_technique=_ANY,
    throughput=_ANY,
    peak_memory_bytes=_COUNT,
    cost_usd=_ANY,
    verdict=_TEXT,
    verdicts=st.dictionaries(
        st.sampled_from(["quality", "latency", "size", "memory"]),
        st.sampled_from(["better", "same", "worse", "inconclusive", "busy", "identical", "slightly worse", HOSTILE]),
    ),
    reason=_TEXT,
    notes=st.lists(_TEXT, max_size=3).map(tuple),
    environment=st.dictionaries(
        st.sampled_from(["cpu", "instruction_sets", "threads", "versions", "shared_rows", "measure", HOSTILE]),
        st.one_of(_ANY, _TEXT, st.booleans(), st.integers(), st.lists(_TEXT, max_size=3), st.just({HOSTILE: math.nan})),
        max_size=4,
    ),
)
any_comparison = st.lists(any_run, max_size=6).map(Comparison)
