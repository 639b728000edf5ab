"""How much of an ONNX graph static int8 reaches: all of it, or its products alone, with their inputs smoothed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.techniques._quantize.mixed import relative_error

Rows = Sequence[dict[str, np.ndarray[Any, Any]]]

PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather")
"""Operators that hold the weights, and nearly all of the arithmetic."""

FLOAT_OUTPUTS = ("MatMul", "Gemm")
"""Products whose integer kernels give float: a convolution's give int8 alone."""

FAR = 0.1
"""Error of the outputs, as a share of their spread, from which on less int8 is worth its time.

In a transformer a few channels of the sum that runs through all layers are many times as large as the rest (Dettmers
et al. 2022, https://arxiv.org/abs/2208.07339). One scale for all of them rounds the rest away, and each layer's
normalization makes up for the size again: MiniLM with int8 throughout is off by 1.3 times the spread of its outputs,
with int8 in products alone by 0.3 at 85% of the speed, and with their inputs smoothed by 0.1 at 80%. Convolutional
nets and MLPs stay below this bound, and are quicker with int8 throughout.
"""

GAIN = 0.5
"""Share of the error that may be left, or the time is not worth it."""

JUDGED_ROWS = 32


@dataclass(frozen=True)
class Reach:
    """Say what of a graph becomes int8.

    Args:
        everything: All that ONNX Runtime has integer kernels for, or products alone with what they give in float.
        smoothed: Outliers of the products' inputs move into their weights first.
    """

    everything: bool = True
    smoothed: bool = False

    def options(self) -> dict[str, Any]:
        """Return the arguments of `quantize_static`, `extra_options` apart."""
        return {} if self.everything else {"op_types_to_quantize": list(PRODUCTS)}

    def extra_options(self) -> dict[str, Any]:
        """Return what goes into `extra_options`."""
        return {} if self.everything else {"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS)}


SMOOTHED = Reach(everything=False, smoothed=True)
REACHES = (Reach(), Reach(everything=False), SMOOTHED)
"""From the quickest to the most exact."""


def reach_of(reference: Path, rows: Rows, write: Callable[[Path, Reach], bool], scratch: Path) -> tuple[Reach, str]:
    """Return how far to go by what the outputs of calibration rows say, and what a reader must know of it.

    Args:
        reference: The float graph.
        rows: Calibration rows by input name, of which the first few are taken.
        write: Writes the quantized file; False where there is nothing to do it to.
        scratch: A folder for the files that are compared.
    """
    few = rows[:JUDGED_ROWS]
    expected = _outputs(reference, few)
    target = scratch / "reach.onnx"
    chosen, least, whole = REACHES[0], np.inf, np.inf
    for reach in REACHES:
        if not write(target, reach):
            continue
        error = max(map(relative_error, _outputs(target, few), expected), default=0.0)
        if reach.everything:
            whole = error
        if error <= GAIN * least:
            chosen, least = reach, error
        if least <= FAR:
            break
    if chosen.everything:
        return chosen, ""
    how = ", their inputs smoothed (SmoothQuant)" if chosen.smoothed else ""
    off = f"off by {whole:.0%} of their spread" if np.isfinite(whole) else "no finite numbers"
    return chosen, (
        f"int8 in products and embeddings alone{how}: with int8 in all that lies between them too the outputs are "
        f"{off}, so they are off by {least:.0%}"
    )


def _outputs(path: Path, rows: Rows) -> list[np.ndarray[Any, Any]]:
    """Return each float output over rows, flat."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    used = {value.name for value in session.get_inputs()}
    floats = [value.name for value in session.get_outputs() if value.type in ("tensor(float)", "tensor(double)")]
    runs = [session.run(floats, {name: v for name, v in row.items() if name in used}) for row in rows] if floats else []
    return [np.concatenate([np.ravel(run[i]) for run in runs]) for i in range(len(floats))]
