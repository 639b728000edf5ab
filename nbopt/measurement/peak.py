"""The machine's measured peak: how many multiply-accumulates it does in a second at most, in each precision.

What a model reaches of that is its distance from the physical limit. A product of two large matrices and a wide 3x3
convolution are run in every runtime that is installed, and the fastest counts. That is done once for a machine, in a
process of its own, so that the notebook's process keeps its memory and threads.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.children import environment_of
from nbopt.datasets.cache import cache_folder
from nbopt.measurement.contention import ContentionSampler
from nbopt.measurement.environment import machine

SIZE = 512
"""Rows and columns of the matrices: enough work that starting threads costs nothing, and so little that a call ends
within one turn that the scheduler gives a thread, so that on a busy machine some calls are not interrupted."""
CHANNELS, EDGE = 128, 28
CONV_MACS = EDGE * EDGE * CHANNELS * CHANNELS * 9
SECONDS = 0.12
"""Time given to one kernel."""
WAIT_SECONDS = 60.0
QUIET = 1.2
"""Contention up to which figures are final; those of a busier machine are measured anew by the next process."""
PRECISIONS = ("float32", "bfloat16", "int8")
VERSION = 1  # of the figures: what is run, and how
DEPENDS_ON = ("numpy", "onnxruntime", "openvino")

Kernel = tuple[int, Callable[[], Any]]
"""Multiply-accumulates of one call, and the call."""


def peak_macs(threads: int, precision: str) -> float | None:
    """Return the peak in multiply-accumulates a second, None where this machine can't execute that precision.

    Args:
        threads: Threads of one inference, 1 or more.
        precision: "float32", "bfloat16" or "int8".
    """
    return peaks(threads).get(precision)


def peaks(threads: int) -> dict[str, float]:
    """Return the peak of each precision that this machine executes, in multiply-accumulates a second.

    The first call on a machine takes two to three seconds; after that the figures come from the cache, until the CPU
    or a library changes. Where they could not be measured the result is empty.
    """
    path = cache_folder() / "peaks" / f"{_key(threads)}.json"
    if path not in _known:
        kept, contention = _read(path)
        if not kept or contention > QUIET:
            found, contention = _measured(threads)
            kept = {name: max(kept.get(name, 0.0), found.get(name, 0.0)) for name in (*found, *kept)}
            if kept:
                _write(path, kept, contention)
        _known[path] = kept
    return dict(_known[path])


_known: dict[Path, dict[str, float]] = {}


def measure(threads: int) -> tuple[dict[str, float], float]:
    """Measure in this process; return the peaks, and how many times longer than on an idle machine it took."""
    best: dict[str, float] = {}
    sampler = ContentionSampler()
    sampler.start()
    for kernels in (_of_openvino, _of_onnxruntime):
        for precision, (macs, call) in kernels(threads):
            best[precision] = max(best.get(precision, 0.0), macs / _fastest(call))
    if not best:
        a = np.ones((SIZE, SIZE), np.float32)
        best["float32"] = SIZE**3 / _fastest(lambda: a @ a)
    return best, sampler.stop().contention or 1.0


def _key(threads: int) -> str:
    about = machine()
    versions = {name: about["versions"].get(name) for name in DEPENDS_ON}
    told = [VERSION, about["cpu"], about["cores"], about["instruction_sets"], versions, threads]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def _read(path: Path) -> tuple[dict[str, float], float]:
    """Return kept figures and their contention; none where there are none, or the file is damaged."""
    try:
        body = json.loads(path.read_text())
        found = {name: float(body["peaks"][name]) for name in PRECISIONS if name in body["peaks"]}
        contention = float(body["contention"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}, 1.0
    sound = all(math.isfinite(value) and value > 0 for value in found.values())
    return (found, contention) if sound else ({}, 1.0)


def _write(path: Path, figures: dict[str, float], contention: float) -> None:
    """Keep figures, whole or not at all; a cache that can't be written only costs the next call its time."""
    scratch = path.with_name(f".{uuid.uuid4().hex[:8]}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps({"peaks": figures, "contention": contention}))
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def _measured(threads: int) -> tuple[dict[str, float], float]:
    """Measure in a process of its own; nothing where that fails, since no verdict rests on the limit."""
    command = [sys.executable, "-m", "nbopt.measurement.peak", "--threads", str(threads)]
    try:
        done = subprocess.run(
            command, env=environment_of(threads), capture_output=True, text=True, timeout=WAIT_SECONDS, check=True
        )
        body = json.loads(done.stdout.splitlines()[-1])
        return {str(name): float(value) for name, value in body["peaks"].items()}, float(body["contention"])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError, KeyError):
        return {}, 1.0


def _fastest(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of several calls: only other work makes one slower."""
    call()
    best, until = float("inf"), time.perf_counter() + SECONDS
    while True:
        began = time.perf_counter()
        call()
        ended = time.perf_counter()
        best = min(best, ended - began)
        if ended > until:
            return best


def _of_openvino(threads: int) -> Iterator[tuple[str, Kernel]]:
    if find_spec("openvino") is None:
        return
    import openvino

    core = openvino.Core()
    wide = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    hints = {"float32": "f32", "int8": "f32"} | ({"bfloat16": "bf16"} if "BF16" in wide else {})
    for precision, hint in hints.items():
        for model, macs, shape in _openvino_models(openvino, precision == "int8"):
            config = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": hint,
            }
            request = core.compile_model(model, "CPU", config).create_infer_request()
            given = {0: np.ones(shape, np.float32)}

            def call(request: Any = request, given: Any = given) -> Any:
                return request.infer(given, share_inputs=True, share_outputs=True)

            yield precision, (macs, call)


def _openvino_models(openvino: Any, quantized: bool) -> Iterator[tuple[Any, int, tuple[int, ...]]]:
    """Yield a product and a convolution with constant weights, quantized on both sides where asked for."""
    ops = openvino.opset13

    def limited(node: Any, low: float, levels: int) -> Any:
        if not quantized:
            return node
        bounds = [np.float32(low), np.float32(1.0)] * 2
        return ops.fake_quantize(node, *[ops.constant(bound) for bound in bounds], levels)

    for shape, macs in (((SIZE, SIZE), SIZE**3), ((1, CHANNELS, EDGE, EDGE), CONV_MACS)):
        given = ops.parameter(list(shape), np.float32)
        data = limited(given, 0.0, 256)
        if len(shape) == 2:
            out = ops.matmul(data, limited(ops.constant(_weights(SIZE, SIZE)), -1.0, 255), False, True)
        else:
            weights = limited(ops.constant(_weights(CHANNELS, CHANNELS, 3, 3)), -1.0, 255)
            out = ops.convolution(data, weights, [1, 1], [1, 1], [1, 1], [1, 1])
        yield openvino.Model([out], [given], "peak"), macs, shape


def _of_onnxruntime(threads: int) -> Iterator[tuple[str, Kernel]]:
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return
    import onnxruntime

    for quantized in (False, True):
        for model, macs, shape in _onnx_models(quantized):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 4
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            given = {"x": np.ones(shape, np.float32)}

            def call(session: Any = session, given: Any = given) -> Any:
                return session.run(None, given)

            yield "int8" if quantized else "float32", (macs, call)


def _onnx_models(quantized: bool) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    """Yield a product and a convolution with constant weights, between QDQ pairs where asked for."""
    from onnx import TensorProto, helper, numpy_helper

    cases: tuple[tuple[str, tuple[int, ...], tuple[int, ...], int, dict[str, Any]], ...] = (
        ("MatMul", (SIZE, SIZE), (SIZE, SIZE), SIZE**3, {}),
        ("Conv", (1, CHANNELS, EDGE, EDGE), (CHANNELS, CHANNELS, 3, 3), CONV_MACS, {"pads": [1, 1, 1, 1]}),
    )
    for op, shape, weight_shape, macs, attributes in cases:
        weights = _weights(*weight_shape)
        constants: dict[str, Any] = {"w": weights}
        nodes: list[Any] = []
        data, weight, out = "x", "w", "y"
        if quantized:
            constants = {
                "w": np.round(weights * 127).astype(np.int8),
                "scale": np.float32(1 / 127),
                "zero": np.uint8(0),
                "signed": np.int8(0),
                "wide": np.float32(8.0),
            }
            nodes = [
                helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"]),
                helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
                helper.make_node("DequantizeLinear", ["w", "scale", "signed"], ["wd"]),
            ]
            data, weight, out = "xd", "wd", "z"
        nodes.append(helper.make_node(op, [data, weight], [out], **attributes))
        if quantized:
            nodes.append(helper.make_node("QuantizeLinear", ["z", "wide", "zero"], ["zq"]))
            nodes.append(helper.make_node("DequantizeLinear", ["zq", "wide", "zero"], ["y"]))
        out_shape = list(shape)
        graph = helper.make_graph(
            nodes,
            "peak",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        yield model.SerializeToString(), macs, shape


@cache
def _weights(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def main() -> None:
    """Measure and write one line of JSON; whatever libraries print goes to standard error."""
    parser = argparse.ArgumentParser(description="Measure this machine's peak in multiply-accumulates a second.")
    parser.add_argument("--threads", type=int, required=True)
    threads: int = parser.parse_args().threads
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with out, tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found, contention = measure(threads)
        out.write(json.dumps({"peaks": found, "contention": contention}) + "\n")


if __name__ == "__main__":
    main()
