"""Trace a torch module into a program that exporters take."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from nbopt.batches import leaves, map_leaves
from nbopt.errors import ExportError
from nbopt.frameworks import Signature
from nbopt.frameworks._primary import primary_output
from nbopt.frameworks._torch_module import clone, invoke, takes_whole, tensors
from nbopt.frameworks._torch_recurrent import traced_for_any_length

EXAMPLE_BATCH = 2  # torch.export fixes an axis whose example length is 0 or 1


class Primary(torch.nn.Module):
    """Give a model positional inputs and one output, so that every exported form has one shape of call.

    torch.export can't mark axes of **named arguments as dynamic, so inputs by name become positions here.
    """

    def __init__(self, model: torch.nn.Module, signature: Signature) -> None:
        super().__init__()
        self.model = model
        self.names = signature.names if signature.keyed else None
        self.whole = takes_whole(model, self.names or len(signature.names))

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        inputs = values if self.names is None else dict(zip(self.names, values, strict=True))
        return primary_output(invoke(self.model, inputs, whole=self.whole))


def trace(
    model: torch.nn.Module, signature: Signature
) -> tuple[torch.export.ExportedProgram, int | None, tuple[str, ...]]:
    """Return the program of a CPU model, the rows that it is fixed to (None: any), and notes.

    Raises:
        ExportError: torch.export refuses the model even for one row.
    """
    # AUTO instead of DYNAMIC: an axis that the code turns out to fix is told by the program, not by an error.
    free = torch.export.Dim.AUTO
    axes = [{axis: free for axis, size in enumerate(leaf.shape) if size is None} for leaf in signature.leaves]

    def attempt(rows: int, *, dynamic: bool, strict: bool) -> torch.export.ExportedProgram:
        # A failed attempt leaves its stand-ins for tensors in an RNN's list of weights: each gets a copy of its own.
        wrapped = Primary(_without_loops(clone(model)), signature).eval()
        example = tensors(model, map_leaves(lambda leaf: np.repeat(leaf, rows, axis=0), signature.example))
        shapes = {"values": tuple(axes)} if dynamic else None
        with quiet(), torch.no_grad(), traced_for_any_length():
            return torch.export.export(wrapped, tuple(leaves(example)), dynamic_shapes=shapes, strict=strict)

    try:
        program = attempt(EXAMPLE_BATCH, dynamic=True, strict=False)
        if "the number of rows" not in _fixed(program, signature):
            return _checked(program, signature), None, ()
        # `len(x)` makes the example's number of rows a constant where the code is run to trace it; where its bytecode
        # is traced, it stays a symbol.
        reason = "its code fixes the number of rows"
        program = attempt(EXAMPLE_BATCH, dynamic=True, strict=True)
        if "the number of rows" not in _fixed(program, signature):
            return _checked(program, signature), None, ()
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001 - torch.export raises dozens of types; the last try decides
        reason = reason_of(error)
    try:
        program = attempt(1, dynamic=False, strict=False)
    except Exception as error:
        raise ExportError("a model that torch.export can trace", reason_of(error), _remedy(error)) from error
    return program, 1, (f"exported for one row at a time: {reason}",)


class _Bag(torch.nn.EmbeddingBag):
    """Do what an EmbeddingBag does of rows of one length, as a look-up and a reduction.

    The exporter makes a loop over rows of an EmbeddingBag, which is slow and which OpenVINO refuses.
    """

    def forward(
        self,
        input: torch.Tensor,  # noqa: A002 - EmbeddingBag's own name, which may be used as a keyword
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if input.ndim != 2 or offsets is not None:
            return super().forward(input, offsets, per_sample_weights)
        rows = torch.nn.functional.embedding(input, self.weight)
        if per_sample_weights is not None:
            rows = rows * per_sample_weights.unsqueeze(-1)
        return rows.sum(1) if self.mode == "sum" else rows.mean(1) if self.mode == "mean" else rows.amax(1)


def _without_loops(model: torch.nn.Module) -> torch.nn.Module:
    """Let what the exporter would make a loop of compute otherwise, in place."""
    own = torch.nn.EmbeddingBag
    for module in model.modules():
        plain = isinstance(module, own) and module.padding_idx is None and module.max_norm is None
        if plain and type(module).forward is own.forward:
            # Its class changes and no more: a model may ask it for its weight or its number of rows.
            module.__class__ = type(type(module).__name__, (_Bag, type(module)), {})
    return model


def _remedy(error: BaseException) -> str:
    """Return what to do about code that torch.export can't trace."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if any(isinstance(value, torch.nn.utils.rnn.PackedSequence) for value in frame.f_locals.values()):
            return (
                "packed sequences can't be exported: run the RNN on the padded batch and take the output of each row's "
                "last step, or use --runtime torch"
            )
    return "replace control flow that depends on values (torch.cond, torch.where), or use --runtime torch"


def _fixed(program: torch.export.ExportedProgram, signature: Signature) -> list[str]:
    """Return, in words, the axes that must vary and that the code has fixed."""
    from torch.fx.experimental.symbolic_shapes import is_concrete_int

    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    fixed = []
    for name, leaf in zip(program.graph_signature.user_inputs, signature.leaves, strict=True):
        value = nodes[name].meta.get("val") if isinstance(name, str) and name in nodes else None
        for axis, size in enumerate(leaf.shape):
            # A symbol that the code has settled is still a SymInt, one with a value.
            if size is None and isinstance(value, torch.Tensor) and is_concrete_int(value.shape[axis]):
                fixed.append("the number of rows" if axis == 0 else f"axis {axis} of {leaf.name}")
    return fixed


def _checked(program: torch.export.ExportedProgram, signature: Signature) -> torch.export.ExportedProgram:
    """Return a program that takes every length that the data has.

    Raises:
        ExportError: Its code fixes a length, so that another would give wrong numbers.
    """
    fixed = _fixed(program, signature)
    if fixed:
        raise ExportError(
            f"a model of any length in {', '.join(fixed)}, which varies in the data",
            "code that fixes it to the example's",
            "use nn.LSTM or nn.GRU in place of nn.RNN and of loops over steps, or pad every batch to one length",
        )
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Keep exporters' progress and deprecation notices out of the user's cell; errors still come."""
    names = ("torch.onnx", "torch.export", "onnxscript", "torch.fx", "torch._dynamo", "torch._guards", "onnx_ir")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)  # what they log as an error comes as an exception too
    try:
        # torch.export prints the graph that it gave up on, where the error says enough.
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reason_of(error: BaseException, limit: int = 300) -> str:
    """Return the first telling line of an error, with its type; OpenVINO's begin with places in its own source."""
    while type(error).__module__.startswith("torch.onnx") and error.__cause__ is not None:
        error = error.__cause__  # the exporter's own says at which of its steps it was, in colours
    text = str(error)
    failed = re.search(r"Conversion is failed for: ([^\n]+)", text)
    if failed:
        return f"no conversion for {failed.group(1).strip()}"[:limit]
    unknown = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", text)
    if unknown:
        return f"no ONNX function for {unknown.group(1)}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Check '", "FrontEnd API", "Exception from"))]
    return f"{type(error).__name__}: {(telling or lines or [''])[0]}"[:limit]


def place_of(program: torch.export.ExportedProgram, reason: str) -> str:
    """Return the layer in which an operation stands that a refusal names, as an addition to it; "" where none does."""
    named = re.search(r"no ONNX function for \w+\.(\w+)", reason)
    if named is None:
        return ""
    # The exporter's name can be a part of the program's: aten.special_bessel_j0 becomes prims.bessel_j0, and
    # aten.linalg_eigvals aten.linalg_eig. The nearest is meant.
    calls = [node for node in program.graph.nodes if node.op == "call_function" and named[1] in str(node.target)]
    layers = [list(node.meta.get("nn_module_stack", {}).values()) for node in sorted(calls, key=_length_of_name)]
    if not layers or not layers[0]:
        return ""
    path, kind = layers[0][-1]
    name = re.sub(r"^(?:L\['self'\]\.)?model\.?", "", path)  # below what gives all models one form of call
    kind = str(kind).rpartition(".")[2].removesuffix("'>")
    return f" (in layer {name}, a {kind})" if name else f" (in {kind}.forward)"


def _length_of_name(node: torch.fx.Node) -> int:
    return len(str(node.target))
