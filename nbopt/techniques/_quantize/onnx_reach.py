"""How much of an ONNX graph static int8 reaches: all of it, or its products alone, with their inputs smoothed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbopt.techniques._quantize.nearness import Row, judged, near_enough
from nbopt.techniques._quantize.onnx_running import Running

LAYERS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
"""Operators that hold weights and do nearly all of the arithmetic."""

FLOAT_OUTPUTS = ("MatMul", "Gemm")
"""Products whose integer kernels give float: a convolution's give int8 alone."""


@dataclass(frozen=True)
class Reach:
    """Say what of a graph becomes int8.

    In a transformer a few channels of the sum that runs through all layers are many times as large as the rest
    (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339). One scale for all of them rounds the rest away, and each
    layer's normalization makes up for the size again: MiniLM with int8 throughout is off by 1.3 times the spread of
    its outputs, with int8 in products alone by 0.3 at 85% of the speed, and with their inputs smoothed by 0.1 at 80%.
    Convolutional nets and MLPs stay below 0.05, and are quicker with int8 throughout.

    Args:
        everything: All that ONNX Runtime has integer kernels for, or products alone with what they give in float.
        smoothed: Outliers of the products' inputs move into their weights first.
    """

    everything: bool = True
    smoothed: bool = False

    @property
    def file(self) -> str:
        """Return the name of the graph that is compared."""
        return f"reach-{self.everything}-{self.smoothed}.onnx"

    def told(self) -> str:
        """Return what a reader must know of products alone."""
        how = ", their inputs smoothed (SmoothQuant)" if self.smoothed else ""
        return f"int8 in products and embeddings alone{how}, what lies between them in float"

    def options(self) -> dict[str, Any]:
        """Return the arguments of `quantize_static`, `extra_options` apart."""
        return {} if self.everything else {"op_types_to_quantize": [*LAYERS, "Gather"]}

    def extra_options(self) -> dict[str, Any]:
        """Return what goes into `extra_options`."""
        return {} if self.everything else {"OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUTS)}


SMOOTHED = Reach(everything=False, smoothed=True)
REACHES = (Reach(), Reach(everything=False), SMOOTHED)
"""From the quickest to the most exact."""


def reach_of(
    reference: Path, rows: Sequence[Row], write: Callable[[Path, Reach], bool], scratch: Path
) -> tuple[Reach, str]:
    """Return how far to go by what the outputs of calibration rows say, and what a reader must know of it.

    Args:
        reference: The float graph.
        rows: Calibration rows by input name, of which the first few are taken.
        write: Writes the quantized file; False where there is nothing to do it to.
        scratch: A folder for the files that are compared, `Reach.file` each.
    """

    def outputs(reach: Reach) -> Sequence[np.ndarray[Any, Any]] | None:
        target = scratch / reach.file
        return _outputs(target, rows) if write(target, reach) else None

    choice = near_enough(REACHES, outputs, _outputs(reference, rows))
    if choice.way.everything:
        return choice.way, ""
    return choice.way, f"{choice.way.told()}: {choice}"


def _outputs(path: Path, rows: Sequence[Row]) -> list[np.ndarray[Any, Any]]:
    """Return each float output over the judged rows."""
    session = Running(path)
    return judged(lambda row: session.run(session.floats, row), rows) if session.floats else []
