"""Run ONNX graphs on rows while they are being quantized: quietly, on CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Running:
    """Hold a session of ONNX Runtime's.

    Args:
        path: A graph.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name for value in self._session.get_inputs()}
        floats = ("tensor(float)", "tensor(double)")
        self.floats = [value.name for value in self._session.get_outputs() if value.type in floats]

    def run(self, names: Sequence[str], row: Mapping[str, Array]) -> list[Array]:
        """Return the outputs `names` for a row, which may hold more than the graph takes."""
        if not names:
            return []  # the session would return all
        outputs: list[Array] = self._session.run(names, {n: v for n, v in row.items() if n in self.inputs})
        return outputs
