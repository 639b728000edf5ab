"""How much of an ONNX graph static int8 reaches: all of it, or its products alone."""

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
"""Error of the outputs, as a share of their spread, from which on what lies between products is worth its time.

In a transformer a few channels of the sum that runs through all layers are many times as large as the rest (Dettmers
et al. 2022, https://arxiv.org/abs/2208.07339). One scale for all of them rounds the rest away, and each layer's
normalization makes up for the size again: MiniLM with int8 throughout is off by 1.3 times the spread of its outputs,
with int8 in products alone by 0.3, at 85% of the speed. Convolutional nets and MLPs stay below this bound, and are
quicker with int8 throughout.
"""

GAIN = 0.5
"""Share of the error that may be left, or the time is not worth it."""

JUDGED_ROWS = 32


@dataclass(frozen=True)
class Reach:
    """Say what of a graph becomes int8.

    Args:
        everything: All that ONNX Runtime has integer kernels for, or products alone with what they give in float.
        note: What a reader must know.
    """

    everything: bool = True
    note: str = ""

    def options(self) -> dict[str, Any]:
        """Return the arguments of `quantize_static`, `extra_options` apart."""
        return {} if self.everything else {"op_types_to_quantize": list(PRODUCTS)}

    def extra_options(self) -> dict[str, Any]:
        """Return what goes into `extra_options`."""
        return {} if self.everything else {"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS)}


def reach_of(prepared: Path, rows: Rows, write: Callable[[Path, Reach], None], scratch: Path) -> Reach:
    """Return how far to go by what the outputs of calibration rows say.

    Args:
        prepared: The float graph.
        rows: Calibration rows by input name, of which the first few are taken.
        write: Writes the quantized file.
        scratch: A folder for the files that are compared.
    """
    few = rows[:JUDGED_ROWS]
    reference = _outputs(prepared, few)
    target = scratch / "reach.onnx"
    errors = []
    for reach in (Reach(), Reach(everything=False)):
        write(target, reach)
        errors.append(max(map(relative_error, _outputs(target, few), reference), default=0.0))
        if errors[0] <= FAR:
            return reach
    whole, products = errors
    if products > GAIN * whole:
        return Reach()
    return Reach(
        False,
        f"int8 in products and embeddings alone: with int8 in all that lies between them the outputs are off by "
        f"{whole:.0%} of their spread, so by {products:.0%}",
    )


def _outputs(path: Path, rows: Rows) -> list[np.ndarray[Any, Any]]:
    """Return each float output over rows, flat, what is finite."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    used = {value.name for value in session.get_inputs()}
    floats = [value.name for value in session.get_outputs() if "float" in value.type or "double" in value.type]
    runs = [session.run(floats, {name: v for name, v in row.items() if name in used}) for row in rows]
    return [np.concatenate([np.ravel(run[i]) for run in runs]) for i in range(len(floats))]
