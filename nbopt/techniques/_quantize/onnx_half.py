"""Weights of ONNX graphs stored as float16, behind a Cast each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.errors import ExportError

if TYPE_CHECKING:
    import onnx

WEIGHING = ("MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Attention", "Gather")
"""Operators whose constants are weights. Other constants are means, variances, positions or sizes: few, and a digit
of one of them may weigh more than all digits of the weights."""

CARRYING = ("Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze")
"""Operators that keep values."""

LARGEST = 65504.0
"""Largest number in float16."""

WORST = 1e-3
"""Largest rms error of weights in float16, as a share of their own rms: twice what numbers of its normal range lose."""


def write_half(source: Path, target: Path, dtype: str) -> tuple[str, ...]:
    """Write the graph with weights of products and tables in float16, cast back for the arithmetic; return notes.

    Args:
        source: The graph.
        target: Where to write.
        dtype: What the model's weights are in, for the message.

    Raises:
        ExportError: There is no weight that is wider, or none that float16 can hold.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    stored = _weights(model.graph)
    casts, beyond = [], []
    for tensor in model.graph.initializer:
        if tensor.name not in stored or tensor.data_type not in (tensor.FLOAT, tensor.DOUBLE):
            continue
        array = numpy_helper.to_array(tensor)
        name, kind = tensor.name, tensor.data_type
        if array.size < 2:
            continue
        if not _fits(array):
            beyond.append(name)
            continue
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), f"{name}_float16"))
        casts.append(helper.make_node("Cast", [f"{name}_float16"], [name], to=kind))
    if not casts:
        few = f": {', '.join(beyond[:3])} lie beyond it" if beyond else ""
        raise ExportError(
            "weights of float32 or float64 that float16 can hold",
            f"none in this {dtype} model{few}",
            "--dtype int8, or leave it as it is",
        )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    onnx.save_model(model, target)
    if not beyond:
        return ()
    some = ", ".join(beyond[:6]) + (f" and {len(beyond) - 6} more" if len(beyond) > 6 else "")
    return (f"not in float16, which is too narrow for them: {some}",)


def _fits(array: np.ndarray[Any, Any]) -> bool:
    """Tell whether weights stay what they are: none too large, and not all so small that their digits are gone."""
    values = array.astype(np.float64)
    if not np.isfinite(values).all() or np.abs(values).max() > LARGEST:
        return False
    lost = values - array.astype(np.float16).astype(np.float64)
    return float(np.sum(lost**2)) <= WORST**2 * float(np.sum(values**2))


def _weights(graph: onnx.GraphProto) -> set[str]:
    """Return the names that products and look-ups read, and those that these are made of without arithmetic."""
    nodes = list(_nodes(graph))
    found: set[str] = set()
    for node in nodes:
        if node.op_type in WEIGHING:
            found |= set(node.input)
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) < 2}
    looked_up = {node.input[0] for node in nodes if node.op_type == "Gather"} & vectors
    for node in reversed(nodes):
        if node.op_type in CARRYING and found & set(node.output):
            found.add(node.input[0])
    return found - looked_up


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph in order, those in the bodies of loops and branches behind what holds them."""
    import onnx

    for node in graph.node:
        yield node
        bodies: Iterable[Any] = (entry.g for entry in node.attribute if entry.type == onnx.AttributeProto.GRAPH)
        for body in bodies:
            yield from _nodes(body)
