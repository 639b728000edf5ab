"""Single weights of a torch model: which there are, how much they matter, and zeros in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.batches import Batch
from nbopt.frameworks._torch_fit import labels_of, told_loss
from nbopt.frameworks._torch_module import call, tensors
from nbopt.frameworks._torch_norms import NORMS
from nbopt.narrowing.lowering import is_added

Array = np.ndarray[Any, Any]
LEAST_DIMENSIONS = 2  # vectors are biases and norms: few, and each of them matters
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRODUCTS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase)
NOT_PRODUCTS = ("embed", "token")  # in names of matrices that are looked up or joined: pos_embedding, cls_token
TABLES = (nn.Embedding, nn.EmbeddingBag)


def prunable(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return module and attribute of every weight matrix, tied ones once; embeddings are look-ups, not products."""
    found: dict[str, tuple[nn.Module, str]] = {}
    seen = _in_tables(model)
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not _is_product(module, name, parameter) or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            found[f"{prefix}.{name}" if prefix else name] = (module, name)
    return found


def _is_product(module: nn.Module, name: str, parameter: torch.Tensor) -> bool:
    """Tell whether rows are multiplied with a weight, which is neither looked up, added, nor a gain of each channel."""
    if parameter.ndim < LEAST_DIMENSIONS or not parameter.dtype.is_floating_point:
        return False
    if isinstance(module, nn.LayerNorm) or is_added(name) or any(word in name for word in NOT_PRODUCTS):
        return False
    # (C, 1, 1): a layer scale, or the lengths that weight norm keeps; but a layer may have one input, or one output.
    vector = sum(size > 1 for size in parameter.shape) < LEAST_DIMENSIONS
    return not vector or (isinstance(module, PRODUCTS) and not name.endswith("_g"))


def prunable_weights(model: nn.Module) -> dict[str, Array]:
    """Return the weights of linear, convolution, recurrent and attention layers by name, as float32."""
    return {full: _array(getattr(module, name)) for full, (module, name) in prunable(model).items()}


def tables(model: nn.Module) -> list[str]:
    """Return the names of the weights of embedding tables, tied ones once."""
    own = _in_tables(model)
    return [name for name, p in model.named_parameters() if id(p) in own and p.dtype.is_floating_point]


def _in_tables(model: nn.Module) -> set[int]:
    tables = [module for module in model.modules() if isinstance(module, TABLES)]
    return {id(parameter) for table in tables for parameter in table.parameters(recurse=False)}


def input_axes(model: nn.Module) -> dict[str, int]:
    """Return, for each prunable weight, the axis along which the layer's inputs lie."""
    return {full: 0 if isinstance(module, TRANSPOSED) else 1 for full, (module, _) in prunable(model).items()}


def put_zeros(model: nn.Module, masks: Mapping[str, Array], kept: dict[str, Any]) -> None:
    """Zero, in place, the weights that masks leave out.

    In place, and again after each step: kernels of recurrent and attention layers read weights without calling the
    layer that owns them, so that a mask which is multiplied in before each call would be stale there; and a model
    that carries such hooks can be neither copied nor exported.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            weight = parameters[name]
            if name not in kept:
                kept[name] = torch.from_numpy(~np.asarray(mask, dtype=bool)).to(weight.device)
            # Filled, not multiplied: a negative number times 0 is -0.0, and two kinds of zeros deflate worse (1.65
            # times smaller at half of them, and 1.73 with one kind).
            weight.masked_fill_(kept[name], 0.0)


def magnitudes(model: nn.Module) -> dict[str, Array]:
    """Return the square of each weight, by name."""
    return {name: _array(p) ** 2 for name, p in model.named_parameters() if p.dtype.is_floating_point}


def scales(model: nn.Module) -> dict[str, Array]:
    """Return the square of each BatchNorm's scale, by name."""
    return {
        f"{prefix}.weight" if prefix else "weight": _array(module.weight) ** 2
        for prefix, module in model.named_modules()
        if isinstance(module, NORMS) and module.weight is not None
    }


def taylor(model: nn.Module, loss: Any, batches: Iterator[Batch]) -> dict[str, Array]:
    """Return the mean over batches of (gradient times weight) squared, by name.

    The additive estimate of Molchanov et al. 2019 (https://arxiv.org/abs/1906.10771, equation 8): of the gradient
    alone little is left at a minimum, of its square over batches the curvature is.
    """
    named = {name: p for name, p in model.named_parameters() if p.dtype.is_floating_point}
    flags = {name: p.requires_grad for name, p in named.items()}
    modes = [(module, module.training) for module in model.modules()]
    sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    count = 0
    model.eval()
    try:
        for parameter in named.values():
            parameter.requires_grad_(True)
        for batch in batches:
            target, weight = labels_of(batch, model)
            # cuDNN's recurrent kernels have a backward pass in training mode only.
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                value = told_loss(loss, call(model, tensors(model, batch.inputs)), target, weight)
                gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
            count += 1
            for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
                if gradient is not None:
                    product = gradient.detach().float() * parameter.detach()
                    sums[name].addcmul_(product, product)
            del gradients  # before the next ones are there too
    finally:
        for name, parameter in named.items():
            parameter.requires_grad_(flags[name])
        for module, training in modes:
            module.training = training
    return {name: value.div_(max(1, count)).cpu().numpy() for name, value in sums.items()}


def _array(parameter: torch.Tensor) -> Array:
    return np.asarray(parameter.detach().cpu().float().numpy())
