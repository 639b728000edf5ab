"""ONNX graphs whose weights lie in a file of their own, whose name the graph holds."""

from __future__ import annotations

from pathlib import Path

from nbopt.errors import MissingExtra


def pointing_to(path: Path, location: str) -> bytes:
    """Return the graph in a file, with its weights in the file of that name beside it; what is no graph as it is.

    Args:
        path: The graph's file; it is read alone.
        location: Name of the file with the weights.

    Raises:
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtra("onnx", "torch", "ONNX files with their weights beside them") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError:
        return path.read_bytes()
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for node in graph.node:
            graphs += [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
        for tensor in graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
    content: bytes = model.SerializeToString()
    return content
