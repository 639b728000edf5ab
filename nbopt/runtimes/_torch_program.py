"""A torch.export program as a module: pickled in its own format, run by names or positions."""

from __future__ import annotations

import io
import math
from typing import Any

import torch

from nbopt.errors import MissingExtra
from nbopt.runtimes import Layer

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution")
PRODUCTS = ("linear", "addmm", "mm", "matmul", "bmm")
SAME_VALUES = ("permute", "transpose", "t", "numpy_T", "view", "reshape", "_unsafe_view", "flatten", "squeeze",
               "unsqueeze", "expand", "contiguous", "clone", "alias", "detach", "to", "_to_copy")  # fmt: skip
"""Calls of a graph that change the form of a tensor, or its dtype, alone."""


class Program(torch.nn.Module):
    """Run an exported program.

    Not pickled as the graph module that it holds: pickle traces that anew, without what makes its batch vary.

    Args:
        content: What `torch.export.save` wrote.
        names: Names of the inputs in order.
    """

    def __init__(self, content: bytes, names: tuple[str, ...]) -> None:
        super().__init__()
        try:
            # It registers the quantizers' operators: without them a file that any process wrote loads in no other.
            import torchao.quantization.pt2e.quantize_pt2e  # noqa: F401
        except ImportError as error:
            raise MissingExtra("torchao", "torch", "int8 with torch.compile") from error
        self.content, self.names = content, names
        self.inner = torch.export.load(io.BytesIO(content)).module()

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, (self.content, self.names)

    def train(self, mode: bool = True) -> Program:
        """Leave the program as it is: it was exported for inference."""
        self.training = mode
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*(args or (kwargs[name] for name in self.names)))


class _Shapes(torch.fx.Interpreter):
    """Run a graph, and keep the shape of what each node makes."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.shapes: dict[Any, tuple[int, ...]] = {}

    def run_node(self, n: Any) -> Any:
        made = super().run_node(n)
        if isinstance(made, torch.Tensor):
            self.shapes[n] = tuple(made.shape)
        return made


def program_layers(program: Program, inputs: list[torch.Tensor], rows: int) -> tuple[Layer, ...]:
    """Return the products of a quantized program: int8 where both sides come out of quantizers.

    That is the pattern which TorchInductor lowers to integer kernels; what it leaves runs in float32 as written.
    """
    run = _Shapes(program.inner)
    with torch.no_grad():
        run.run(*inputs)
    note = "by the quantizers around it, which TorchInductor lowers to an integer kernel"
    layers = []
    for node in program.inner.graph.nodes:
        name = getattr(node.target, "__name__", str(node.target)).partition(".")[0]
        if node.op != "call_function" or name not in (*CONVOLUTIONS, *PRODUCTS):
            continue
        sides = [arg for arg in node.args if isinstance(arg, torch.fx.Node)][-2 if name == "addmm" else 0 :][:2]
        compute = _computes(sides)
        weight = _held(program.inner, sides[1])
        shape = tuple(weight.shape) if weight is not None else ()
        out = math.prod(run.shapes[node])
        given = run.shapes[sides[0]]
        depth = math.prod(shape[1:]) if name in CONVOLUTIONS else given[-1]
        layers.append(
            Layer(
                _scope(node),
                "Conv" if name in CONVOLUTIONS else "Linear" if weight is not None else "MatMul",
                "" if weight is None else str(weight.dtype).removeprefix("torch."),
                compute,
                shape,
                0 if weight is None else weight.numel(),
                0 if weight is None else int((weight == 0).sum()),
                out * depth // max(1, rows),
                "" if compute == "float32" else note,
            )
        )
    return tuple(layers)


def _computes(sides: list[Any]) -> str:
    """Return what a product multiplies in: integers where both sides come out of quantizers."""
    ends = [_behind(side, ()) for side in sides]
    if not all("dequantize" in str(end.target) for end in ends):
        return "float32"
    scales = [node for end in ends for node in end.all_input_nodes[1:]]
    found = any("choose_qparams" in str(each.target) for scale in scales for each in (scale, *scale.all_input_nodes))
    return "int8 dynamic" if found else "int8"


def _behind(node: Any, through: tuple[str, ...]) -> Any:
    """Return the node whose values a node passes on, by calls that keep them and by those named `through`."""
    while node.op == "call_function" and node.all_input_nodes:
        parts = str(node.target).split(".")
        name = parts[1] if len(parts) > 1 else parts[0]
        if name not in SAME_VALUES and not any(word in name for word in through):
            break
        node = node.all_input_nodes[0]
    return node


def _held(module: Any, node: Any) -> torch.Tensor | None:
    """Return the stored tensor that a node's values come from."""
    node = _behind(node, ("quantize",))
    if node.op != "get_attr":
        return None
    found: Any = module
    for part in node.target.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, torch.Tensor) else None


def _scope(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    name = paths[-1] if paths else node.name
    return str(name).removeprefix("L['self'].").removeprefix("model.") or str(node.name)
