"""Put norms into a torch module so that it computes what it did, and fold BatchNorm into the weights before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from nbopt.batches import Batch
from nbopt.frameworks._torch_module import call, folded, tensors
from nbopt.frameworks._torch_norms import NORMS
from nbopt.techniques._regularize.calibrating import Moments
from nbopt.techniques._regularize.places import Place

ATTRIBUTE = "nbopt_norm"
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Normed:
    """Apply the norm that stands in a layer to its outputs, as a hook.

    A norm in the layer itself keeps the names of the weights that were there, which a wrapper would change.
    """

    def __call__(self, module: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        """Return the outputs normed."""
        norm = module.get_submodule(ATTRIBUTE)
        # Channels are the last axis of a linear layer's outputs, and BatchNorm takes the second for them.
        moved = isinstance(module, nn.Linear) and output.ndim > 2 and not isinstance(norm, nn.LayerNorm)
        x = output.movedim(-1, 1) if moved else output
        if isinstance(norm, NORMS) and norm.training and x.numel() == x.shape[1]:
            return output  # one row has no variance
        result: torch.Tensor = norm(x)
        return result.movedim(1, -1) if moved else result


def measured(model: nn.Module, places: Sequence[Place], batches: Iterable[Batch]) -> dict[str, Moments]:
    """Return the moments of what layers give, channel by channel."""
    moments = {place.name: Moments() for place in places}

    def hook(name: str, module: nn.Module) -> Any:
        def note(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            channels = output if isinstance(module, nn.Linear) else output.movedim(1, -1)
            moments[name].add(channels.detach().double().cpu().numpy())

        return module.register_forward_hook(note)

    handles = [hook(name, model.get_submodule(name)) for name in moments]
    model.eval()
    with torch.no_grad():
        for batch in batches:
            call(model, tensors(model, batch.inputs))
    for handle in handles:
        handle.remove()
    return moments


def insert(model: nn.Module, kind: str, moments: Mapping[str, Moments]) -> None:
    """Put a norm after each layer, in place, set so that outputs stay what they are on average or exactly.

    Args:
        model: To be changed.
        kind: "batchnorm" or "layernorm".
        moments: Of each layer's outputs.
    """
    for name, found in moments.items():
        module = model.get_submodule(name)
        parameter = next(module.parameters())
        channels = len(found.mean)
        norm: Any
        if kind == "batchnorm":
            dimensions = 1 if isinstance(module, nn.Linear) else len(module.kernel_size)
            norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 1](channels)
            _set(norm.running_mean, found.mean)
            _set(norm.running_var, found.variance)
            _set(norm.weight, np.sqrt(found.variance + norm.eps))
            _set(norm.bias, found.mean)
        else:
            norm = nn.LayerNorm(channels) if isinstance(module, nn.Linear) else nn.GroupNorm(1, channels)
            _set(norm.weight, np.full(channels, found.row_deviation))
            _set(norm.bias, np.full(channels, found.row_mean))
        module.add_module(ATTRIBUTE, norm.to(parameter.device, parameter.dtype).eval())
        module.register_forward_hook(Normed())


def fold(model: nn.Module, followed: Mapping[str, str]) -> int:
    """Fold BatchNorm into the weights before it, in place; return of how many layers.

    Args:
        model: In evaluation mode.
        followed: For each norm of the user's own the layer that it hears.
    """
    count = 0
    for module in list(model.modules()):
        norm = getattr(module, ATTRIBUTE, None)
        if isinstance(norm, NORMS):
            _fold(module, norm)
            delattr(module, ATTRIBUTE)
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, Normed):
                    del module._forward_hooks[key]
            count += 1
    heard_by: dict[str, int] = {}
    for maker in followed.values():
        heard_by[maker] = heard_by.get(maker, 0) + 1
    for name, maker in followed.items():
        norm, layer = model.get_submodule(name), model.get_submodule(maker)
        plain = not parametrize.is_parametrized(layer)
        if plain and isinstance(norm, NORMS) and norm.track_running_stats and heard_by[maker] == 1:
            _fold(layer, norm)
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.Identity())
            count += 1
    return count


def _fold(layer: Any, norm: Any) -> None:
    layer = folded(layer)  # what weight norm computes is what is folded into
    statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    if isinstance(layer, nn.Linear):
        weight, bias = fuse_linear_bn_weights(layer.weight, layer.bias, *statistics)
    else:
        transpose = isinstance(layer, TRANSPOSED)
        weight, bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transpose=transpose)
    layer.weight, layer.bias = weight, bias


def _set(tensor: torch.Tensor, value: Any) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.asarray(value)))
