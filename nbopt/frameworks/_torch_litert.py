"""Write a torch module as a .tflite file, through litert-torch (https://github.com/google-ai-edge/litert-torch)."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch

from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.frameworks._quiet import quiet as quiet_tensorflow
from nbopt.frameworks._torch_module import clone, folded, tensors
from nbopt.frameworks._torch_trace import Primary, quiet, reason_of


def write_litert(model: torch.nn.Module, signature: Signature, path: Path) -> Exported:
    """Write `model` for one row at a time.

    With an axis of any length, litert-torch 0.10 fails in all of a CNN, an LSTM and a transformer ("Shapes must be 1D
    sequences of concrete values").

    Args:
        model: In evaluation mode, on any device.
        signature: The model's inputs; inputs by name become positions, in the signature's order.
        path: Where to write.

    Raises:
        ExportError: The converter refuses the model, or rows differ in shape.
        MissingExtra: litert-torch is not installed.
    """
    try:
        with quiet_tensorflow():
            import litert_torch
    except ImportError as error:
        raise MissingExtra(str(error.name), "litert-torch", "export of a torch model to LiteRT") from error
    for leaf in signature.leaves:
        if any(size is None for size in leaf.shape[1:]):
            raise ExportError(
                "inputs of one shape, which litert-torch fixes",
                f"{leaf.name}, whose rows differ in shape",
                "pad the rows to one length, or try another runtime",
            )
    twin = Primary(folded(clone(model)).cpu().float(), signature).eval()
    example = tensors(twin, signature.example)
    inputs = tuple(example.values()) if isinstance(example, dict) else tuple(example)
    try:
        with quiet(), quiet_tensorflow(), contextlib.redirect_stdout(io.StringIO()):
            litert_torch.convert(twin, inputs).export(str(path))
    except Exception as error:
        # The converter raises types of its own for each operation that it lacks; what matters is which one.
        raise ExportError("operations that LiteRT has", reason_of(error), "try another runtime") from error
    return Exported(path, 1, ("exported for batch 1, which is all that litert-torch does",))
