"""What may change in a torch module beside its widths: kernels that can be cropped, residual blocks that can go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from nbopt.architectures.parts import Block, Kernel
from nbopt.batches import Inputs
from nbopt.frameworks._torch_module import call, tensors

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LEAST_DIMENSIONS = 2  # vectors are biases and norms


def kernels_of(model: nn.Module) -> list[Kernel]:
    """Return the convolutions whose kernels can be cropped around their centre: odd, of one size, padded enough.

    With less padding by as much as the rim is wide, the windows keep their centres, whatever the stride.
    """
    found = []
    for name, module in model.named_modules():
        if not isinstance(module, CONVOLUTIONS) or len({*module.kernel_size}) > 1 or module.padding_mode != "zeros":
            continue
        size = module.kernel_size[0]
        if size % 2 == 0 or module.padding == "valid":
            continue
        least = 1
        if module.padding != "same":
            pads = zip(module.padding, module.dilation, strict=True)
            least = max(1, *(size - 2 * (int(padding) // step) for padding, step in pads))
        if least < size:
            axes = tuple(range(2, 2 + len(module.kernel_size)))
            found.append(Kernel(name, f"{name}.weight" if name else "weight", axes, size, least))
    return found


def cropped(model: nn.Module, kernels: Mapping[str, int]) -> nn.Module:
    """Return the model with smaller kernels, in place.

    Args:
        model: A copy that may be changed.
        kernels: Size of each kernel, by the convolution's name.
    """
    modules = dict(model.named_modules())
    for name, size in kernels.items():
        module: Any = modules[name]
        rim = (module.kernel_size[0] - size) // 2
        if not rim:
            continue
        weight = module.weight.detach()
        for axis in range(2, weight.ndim):
            weight = weight.narrow(axis, rim, size)
        module.weight = nn.Parameter(weight.clone(), requires_grad=module.weight.requires_grad)
        module.kernel_size = (size,) * len(module.kernel_size)
        if module.padding != "same":
            steps = zip(module.padding, module.dilation, strict=True)
            module.padding = tuple(int(padding) - rim * step for padding, step in steps)
        else:
            module._reversed_padding_repeated_twice = [
                pad for step in reversed(module.dilation) for pad in (step * (size - 1) // 2,) * 2
            ]
    return model


def blocks_of(model: nn.Module, inputs: Inputs) -> list[Block]:
    """Return the residual blocks that keep their shape, the innermost ones, in the order in which they run.

    A block is residual where what it is given still decides what it gives when all its matrices are zero. One that the
    model looks into by itself can't go: `nn.TransformerEncoder` asks its first layer how that has its axes.

    Args:
        model: In evaluation mode; it stays as it is.
        inputs: Of two rows or more.
    """
    watched: dict[str, tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = {}
    often: dict[str, int] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            often[name] = often.get(name, 0) + 1
            # Of a block that gives a tuple its caller takes an element: what it was given can't stand there.
            if not isinstance(output, torch.Tensor) or not args or not isinstance(args[0], torch.Tensor):
                return
            if args[0].shape != output.shape:
                return
            others = [x for x in (*args[1:], *kwargs.values()) if isinstance(x, torch.Tensor)]
            if all(other.shape != output.shape for other in others):  # else which of them would take its place?
                watched[name] = (module, args, kwargs)

        return hook

    candidates = [(n, m) for n, m in model.named_modules() if n and list(m.children()) and _matrices(m)]
    handles = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in candidates]
    try:
        with torch.no_grad():
            call(model, tensors(model, inputs))
    finally:
        for handle in handles:
            handle.remove()
    # One that is run twice can't be left out in one place alone.
    names = [name for name in watched if often[name] == 1 and _residual(*watched[name])]
    inner = [name for name in names if not any(other.startswith(f"{name}.") for other in names)]
    return [
        Block(name, (), tuple(f"{name}.{part}" for part, _ in watched[name][0].named_modules() if part))
        for name in inner
        if _runs_without(model, name, inputs)
    ]


def _runs_without(model: nn.Module, name: str, inputs: Inputs) -> bool:
    """Tell whether the model runs with a block left out; it has it again afterwards."""
    block = model.get_submodule(name)
    without(model, frozenset([name]))
    try:
        with torch.no_grad():
            call(model, tensors(model, inputs))
    except Exception:  # noqa: BLE001 - whatever the user's own code raises where a block of it is another
        return False
    finally:
        _put(model, name, block)
    return True


def _matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.ndim >= LEAST_DIMENSIONS}


def _residual(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether what a block is given comes through it past all its matrices."""
    silent = {name: torch.zeros_like(p) for name, p in _matrices(module).items()}
    with torch.no_grad():
        moved = args[0] + torch.linspace(0.5, 1.5, args[0].numel(), device=args[0].device).view_as(args[0])
        one, other = (
            torch.func.functional_call(module, silent, (first, *args[1:]), kwargs) for first in (args[0], moved)
        )
    return bool((one != other).any())


def without(model: nn.Module, blocks: frozenset[str]) -> nn.Module:
    """Return the model without some blocks, in place: each gives what it is given."""
    for name in blocks:
        _put(model, name, Passing())
    return model


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    parent = model.get_submodule(owner) if owner else model
    parent._modules[leaf] = module


class Passing(nn.Module):
    """Give the first of what it is given."""

    def forward(self, first: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Return the first input."""
        return first
