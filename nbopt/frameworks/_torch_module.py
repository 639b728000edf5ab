"""A torch module at hand: copied, called, and its tensors brought in and out."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from nbopt.batches import Inputs, map_leaves
from nbopt.errors import ModelError
from nbopt.frameworks._primary import primary_output


def plain(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module that torch.compile or DataParallel wraps, or the model itself."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile's wrapper; its class is private
        if not isinstance(inner, torch.nn.Module):
            inner = model.module if isinstance(model, wrappers) else None
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner


def folded(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model with what computes its weights (weight norm, spectral norm, masks) computed once, in place.

    They serve training; a module that has them can't be pickled, and computes its weights anew in each call.
    """
    for module in list(model.modules()):
        _without_hooks(module)
        if not parametrize.is_parametrized(module):
            continue
        # Not by torch's remove_parametrizations: it takes the property off the class, which deepcopy shares with the
        # user's own model, and that would have no weight any more.
        with torch.no_grad():
            values = {name: getattr(module, name).clone() for name in module.parametrizations}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module.parametrizations
        for name, value in values.items():
            module.register_parameter(name, torch.nn.Parameter(value))
    return model


def _without_hooks(module: torch.nn.Module) -> None:
    """Take out the hooks by which torch computed weights before it had parametrizations, and still masks them."""
    for hook in list(module._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)


def clone(model: torch.nn.Module, sharing: Iterable[torch.Tensor] = ()) -> torch.nn.Module:
    """Return an independent copy in evaluation mode, of what torch.compile or DataParallel wraps.

    Args:
        model: The model.
        sharing: Weights that the copy may have in common with it, since they will be replaced there.

    Raises:
        ModelError: Neither deepcopy nor pickle can copy it.
    """
    model = plain(model)
    try:
        twin = copy.deepcopy(model, {id(weight): weight for weight in sharing})
    except (RuntimeError, TypeError, AttributeError) as first:
        # Non-leaf tensors (weight norm, pruning masks) defeat deepcopy; pickling detaches nothing either, but
        # goes through state that such modules define for it.
        import cloudpickle

        from nbopt.frameworks._torch_pickle import load

        try:
            twin = load(cloudpickle.dumps(model))
        except Exception as error:
            raise ModelError(
                "a model that can be copied, so that yours stays untouched",
                f"copy.deepcopy raised {type(first).__name__}: {first}",
                "remove hooks and parametrizations first (torch.nn.utils.prune.remove, remove_weight_norm)",
            ) from error
    return twin.eval()


def device_of(model: torch.nn.Module) -> str:
    """Return the device of the first parameter, "cpu" where there is none."""
    return str(next((p.device for p in model.parameters()), "cpu"))


def state_of(model: torch.nn.Module) -> dict[str, Any]:
    """Return a copy of all weights, buffers and extra state, which may be anything."""
    return {
        name: value.detach().clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in model.state_dict().items()
    }


def last_leaf(model: torch.nn.Module) -> torch.nn.Module | None:
    """Return the last module without children, which in most models makes the output."""
    found = None
    for module in model.modules():
        if not list(module.children()):
            found = module
    return found


def tensors(model: torch.nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs as tensors on the model's device; floating ones in the model's dtype."""
    parameter = next((p for p in model.parameters() if p.dtype.is_floating_point), None)

    def move(leaf: Any) -> torch.Tensor:
        # torch refuses some NumPy dtypes (uint16) and warns about read-only arrays: a copy settles both.
        tensor = leaf if isinstance(leaf, torch.Tensor) else torch.from_numpy(np.array(leaf))
        if parameter is None:
            return tensor
        if tensor.dtype.is_floating_point and tensor.dtype != parameter.dtype:
            tensor = tensor.to(parameter.dtype)
        return tensor.to(parameter.device)

    return map_leaves(move, inputs)


def takes_whole(model: torch.nn.Module, inputs: Iterable[str] | int) -> bool:
    """Tell whether the inputs go in as one argument, `forward(self, batch)`: a mapping, or a tuple of several.

    So where forward has one argument to fill, and that has the name of none of the inputs.

    Args:
        model: The module.
        inputs: Names of the inputs, or how many there are without names.
    """
    forward = getattr(plain(model), "forward", None)
    try:
        parameters = list(inspect.signature(forward).parameters.values()) if callable(forward) else []
    except ValueError:  # compiled code that tells no signature
        return False
    if not parameters:
        return False
    first, *others = parameters
    by_position = (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    if first.kind not in by_position or first.default is not first.empty:
        return False
    if isinstance(inputs, int):
        return inputs > 1 and not any(each.kind in (*by_position, each.VAR_POSITIONAL) for each in others)
    known = set(inputs)
    by_name = any(each.kind is each.VAR_KEYWORD or each.name in known for each in parameters)
    return not by_name and all(each.default is not each.empty for each in others)


def invoke(model: Any, inputs: Inputs, *, whole: bool) -> Any:
    """Call the model with its inputs in one argument, or each in its own, by position or by name."""
    if whole:
        return model(dict(inputs) if isinstance(inputs, dict) else tuple(inputs))
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def call(model: torch.nn.Module, inputs: Inputs) -> Any:
    """Call the model with positional or named inputs, and return its primary output."""
    return primary_output(called(model, inputs))


def called(model: torch.nn.Module, inputs: Inputs) -> Any:
    """Call the model with positional or named inputs, and return all that it gives."""
    whole = takes_whole(model, inputs if isinstance(inputs, dict) else len(inputs))
    return invoke(model, inputs, whole=whole)


def output_array(output: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return an output tensor as NumPy; half precisions as float32."""
    tensor = output.detach().cpu()
    if tensor.dtype.is_floating_point and tensor.dtype.itemsize < 4:
        tensor = tensor.float()
    return np.asarray(tensor.numpy())


def plain_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose elements can be read: torchao's quantized ones hold several, and take few operations."""
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    if is_traceable_wrapper_subclass(tensor) and hasattr(tensor, "dequantize"):
        return tensor.dequantize()
    return tensor
