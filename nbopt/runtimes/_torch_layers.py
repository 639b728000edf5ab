"""The layers of a torch module, from the operators that one forward pass dispatches.

Each product of matrices and each convolution is seen with the dtypes of its operands, after casts (autocast) and
inside of functions (scaled dot-product attention), and belongs to the module that runs at that moment. Hooks on
every module also keep transformers off their fused inference kernel, which does the same arithmetic unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nbopt.runtimes import UNKNOWN, Layer
from nbopt.runtimes._layer_parts import MASK, ORIGINAL, largest, masks_among

RECURRENT = {"LSTM": "LSTM", "LSTMCell": "LSTM", "GRU": "GRU", "GRUCell": "GRU", "RNN": "RNN", "RNNCell": "RNN"}
EMBEDDINGS = ("Embedding", "EmbeddingBag")
ATTENTION = "scaled_dot_product"
DYNAMIC = ("_dynamic", "dynamic_")
EIGHT_BITS = (torch.int8, torch.uint8)
STEPPED = ("quantized_lstm", "quantized_gru", "quantized_lstm_cell_dynamic", "quantized_gru_cell_dynamic")


@dataclass
class _Seen:
    """Gather what one module multiplied."""

    macs: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)


class _Counter(TorchDispatchMode):
    """See each operator with its operands while a module runs; composite ones come in their parts.

    Args:
        running: Names of the modules that run, the innermost last.
        holders: Names of the modules that hold a weight, by the address of its storage.
    """

    def __init__(self, running: list[str], holders: dict[int, list[str]]) -> None:
        super().__init__()
        self.running, self.holders = running, holders
        self.seen: dict[tuple[str, str], _Seen] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import the compiler, two seconds, to tell it to stay away

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        counted = _operands(func, args)
        if counted is not None:
            kind, operands = counted
            seen = self.seen.setdefault((self._owner(operands), kind), _Seen())
            macs, dtype = _macs(func, args, out), _dtype_of(func, operands)
            seen.macs += macs
            seen.dtypes[dtype] = seen.dtypes.get(dtype, 0) + macs
        return out

    def _owner(self, operands: list[torch.Tensor]) -> str:
        """Return the module whose weight is multiplied: a functional call uses that of a module that never runs."""
        innermost = self.running[-1] if self.running else ""
        for operand in operands:
            if type(operand) is torch.Tensor or type(operand) is torch.nn.Parameter:
                names = self.holders.get(operand.untyped_storage().data_ptr(), [])
                if names:
                    return innermost if innermost in names else names[0]
        return innermost


def executed_layers(model: torch.nn.Module, run: Callable[[], Any], rows: int, note: str = "") -> tuple[Layer, ...]:
    """Return the layers of a module.

    Args:
        model: The module.
        run: Runs it on `rows` rows.
        rows: Rows of that run.
        note: Said of layers whose arithmetic a compiler may change.
    """
    names = {module: name for name, module in model.named_modules()}
    running: list[str] = []
    ran: set[str] = set()
    with _hooked(model, names, running, ran):
        counter = _Counter(running, _holders(model))
        # Not inference mode: there composite operators are dispatched whole.
        with torch.no_grad(), counter:
            run()
    layers = []
    for name, module in model.named_modules():
        made = {kind: seen for (owner, kind), seen in counter.seen.items() if owner == name}
        layers += list(_layers(name or type(module).__name__, module, made, name in ran, rows, note))
    return tuple(layers)


def left_in_module(model: torch.nn.Module) -> tuple[str, ...]:
    """Return masks of torch's pruning, parametrizations and fake quantizers that a module still carries."""
    held = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    found = [*masks_among(held)]
    found += [name for name, module in model.named_modules() if "FakeQuant" in type(module).__name__]
    return tuple(found)


@contextmanager
def _hooked(model: torch.nn.Module, names: dict[Any, str], running: list[str], ran: set[str]) -> Iterator[None]:
    """Keep the name of the innermost running module at the end of `running`."""

    def enter(module: Any, _: Any) -> None:
        running.append(names[module])
        ran.add(names[module])

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _holders(model: torch.nn.Module) -> dict[int, list[str]]:
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for _, weight in _weights(module):
            if type(weight) in (torch.Tensor, torch.nn.Parameter) and not weight.is_quantized:
                holders.setdefault(weight.untyped_storage().data_ptr(), []).append(name)
    return holders


def _operands(func: Any, args: Any) -> tuple[str, list[torch.Tensor]] | None:
    """Return the kind of an operator that multiplies, and what it multiplies; None for others."""
    name = func._schema.name.split("::")[-1]
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if name in ("mm", "bmm", "_int_mm", "mv", "dot", "mkldnn_rnn_layer", "_weight_int8pack_mm"):
        return ("MatMul" if name in ("bmm", "dot") else "Linear"), tensors[:2]
    if name in STEPPED:
        return "Steps", tensors[:1]
    if name in ("addmm", "baddbmm", "addmv"):
        return ("MatMul" if name == "baddbmm" else "Linear"), tensors[1:3]
    if name in ("convolution", "_convolution"):
        return "Conv", tensors[:2]
    if ATTENTION in name:
        return "Attention", tensors[:3]
    if func.namespace in ("quantized", "onednn") and any(part in name for part in ("linear", "conv")):
        return ("Conv" if "conv" in name else "Linear"), tensors[:1]
    return None


def _macs(func: Any, args: Any, out: Any) -> int:
    """Return the multiply-accumulates of one operator, from the shapes that went in and came out."""
    name = func._schema.name.split("::")[-1]
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    made = out[0] if isinstance(out, (tuple, list)) else out
    if name in STEPPED:
        return tensors[0][..., 0].numel()  # the weights, which are packed, come in with the module
    if name == "mkldnn_rnn_layer":
        steps, rows = tensors[0].shape[:2]
        return steps * rows * (tensors[1].numel() + tensors[2].numel())
    if "convolution" in name:
        transposed = bool(args[6])
        weight = tensors[1]
        per_output = weight.numel() // weight.shape[0]
        return (tensors[0] if transposed else made).numel() * per_output
    if ATTENTION in name:
        query, key, value = tensors[:3]
        return query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    if func.namespace in ("quantized", "onednn"):
        depth = tensors[0].shape[-1]
        return made.numel() * depth if "linear" in name else _packed_conv_macs(args, made)
    first = tensors[1] if name.startswith(("addmm", "addmv", "baddbmm")) else tensors[0]
    return made.numel() * first.shape[-1]


def _packed_conv_macs(args: Any, made: torch.Tensor) -> int:
    packed = next((arg for arg in args if hasattr(arg, "unpack")), None)
    weight = packed.unpack()[0] if packed is not None else None
    return made.numel() * (weight.numel() // weight.shape[0]) if weight is not None else 0


def _dtype_of(func: Any, operands: list[torch.Tensor]) -> str:
    """Return the dtype that an operator multiplies in, from those of its operands."""
    if func._schema.name.split("::")[-1] in STEPPED:
        return "int8 dynamic"
    if func.namespace in ("quantized", "onednn"):
        dynamic = any(part in func._schema.name for part in DYNAMIC) or operands[0].dtype.is_floating_point
        return "int8 dynamic" if dynamic else "int8"
    dtypes = {_plain(tensor.dtype) for tensor in operands}
    if dtypes <= {"int8", "uint8"}:
        return "int8"
    return next((dtype for dtype in sorted(dtypes) if "float" in dtype), UNKNOWN)


def _layers(
    name: str, module: torch.nn.Module, made: dict[str, _Seen], ran: bool, rows: int, note: str
) -> Iterator[Layer]:
    """Yield what one module holds and multiplied: with its weights first, then products of activations."""
    weights = [tensor for key, tensor in _weights(module) if tensor is not None]
    shapes = [tuple(int(size) for size in tensor.shape) for tensor in weights]
    size = sum(math.prod(shape) for shape in shapes)
    dtype = _stored(weights[0]) if weights else ""
    zeros = sum(map(_zeros, weights))
    if (steps := made.pop("Steps", None)) is not None:
        made["Linear"] = _Seen(steps.macs * size, {dtype: macs * size for dtype, macs in steps.dtypes.items()})
    weighted = {kind: seen for kind, seen in made.items() if kind in ("Linear", "Conv")}
    if weights and not weighted and (held := made.get("MatMul")) is not None:
        # A weight of three axes is multiplied by bmm, as products of activations are.
        weighted = {"Linear": held}
    if weights:
        counts: dict[str, int] = {}
        for seen in weighted.values():
            for computed, macs in seen.dtypes.items():
                counts[computed] = counts.get(computed, 0) + macs
        macs = sum(counts.values())
        kind = _kind(module, weighted)
        if kind == "Embedding":
            computes, said = _plain_or(dtype), ""
        elif counts:
            computes, said = max(counts, key=lambda key: counts[key]), note
        else:
            computes, said = (
                UNKNOWN,
                "its weights were not multiplied on this row" if ran else "it did not run on this row",
            )
        if kind or macs:
            yield Layer(
                name, kind or "Linear", dtype, computes, largest(shapes), size, zeros, macs // max(1, rows), said
            )
    for kind, seen in made.items():
        if weights and (kind in weighted or weighted.get("Linear") is seen):
            continue
        computes = max(seen.dtypes, key=lambda key: seen.dtypes[key])
        shown = kind if kind in ("Attention", "Conv") else "MatMul"
        yield Layer(name, shown, "", computes, macs=seen.macs // max(1, rows), note=note)


def _kind(module: torch.nn.Module, made: dict[str, _Seen]) -> str:
    name = type(module).__name__
    if name in RECURRENT:
        return RECURRENT[name]
    if any(base.__name__ in EMBEDDINGS for base in type(module).__mro__):
        return "Embedding"
    if "Conv" in made or name.startswith(("Conv", "LazyConv")):
        return "ConvTranspose" if "Transpose" in name else "Conv"
    return "Linear" if made or name.endswith("Linear") else ""


def _weights(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the matrices and filters of a module itself, biases and norms left out."""
    packed = getattr(module, "weight", None)
    if callable(packed) and not isinstance(packed, torch.Tensor):  # torch's quantized modules
        yield "weight", packed()
    elif hasattr(module, "_all_weight_values"):  # its dynamic recurrent ones
        yield from module.get_weight().items()
    elif isinstance(packed, torch.Tensor) and packed.dim() > 1 and "weight" not in module._parameters:
        yield "weight", packed  # made of a mask and an original, or by a parametrization
    # Buffers are tables of positions and masks; only those of 8 bits are weights, of a user's own quantized layer.
    buffers = [(key, held) for key, held in module.named_buffers(recurse=False) if held.dtype in EIGHT_BITS]
    for key, parameter in (*module.named_parameters(recurse=False), *buffers):
        if parameter.dim() > 1 and not key.startswith("bias") and not key.endswith((MASK, ORIGINAL)):
            yield key, parameter


def _stored(tensor: Any) -> str:
    """Return the dtype that a weight is stored in; of a tensor subclass that of its largest part."""
    parts = _parts(tensor)
    return _plain(max(parts, key=lambda part: part.numel()).dtype)


def _parts(tensor: Any) -> list[torch.Tensor]:
    """Return the plain tensors that a tensor subclass (torchao's) is made of; a plain tensor is its own part."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    keys, _ = tensor.__tensor_flatten__()
    return [part for key in keys for part in _parts(getattr(tensor, key))]


def _zeros(tensor: Any) -> int:
    if getattr(tensor, "is_quantized", False):
        points = tensor.q_per_channel_zero_points() if "channel" in str(tensor.qscheme()) else tensor.q_zero_point()
        values = tensor.int_repr()
        if isinstance(points, torch.Tensor):
            points = points.reshape(-1, *[1] * (values.dim() - 1))
        return int((values == points).sum())
    largest_part = max(_parts(tensor), key=lambda part: part.numel())
    return int(largest_part.numel() - torch.count_nonzero(largest_part))


def _plain(dtype: Any) -> str:
    return {"qint8": "int8", "quint8": "uint8"}.get(name := str(dtype).removeprefix("torch."), name)


def _plain_or(dtype: str) -> str:
    return dtype or UNKNOWN
