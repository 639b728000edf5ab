"""Train a torch module with the rounding of int8 in place.

Not by torchao's PT2E, which was tried: its prepared graph has other names than the user's model, so that masks of
pruning find nothing, it takes only what torch.export and its quantizer take (IndexError on a BERT, an LSTM left out),
and its result runs in ONNX Runtime alone. Here the model stays what it is, every runtime quantizes it afterwards with
its own means, and what was trained for is the same: weights on a grid for each channel, inputs of layers on 256 levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.frameworks._torch_module import call, folded, tensors
from nbopt.techniques._quantize.calibrating import calibration_batches
from nbopt.techniques._quantize.rounding import FOLLOWING, TINY, range_of_zero, revived, weight_levels

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
IN_PLACE = True
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)


class _Weights(torch.autograd.Function):
    """Round weights; their gradient passes as if they had not been."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, axes: tuple[int, ...], levels: int) -> torch.Tensor:
        wide = _wide(weight)
        scale = (wide.abs().amax(axes, keepdim=True) / levels).clamp_min(TINY)
        return ((wide / scale).round_().clamp_(-levels, levels) * scale).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], None, None


class _Activations(torch.autograd.Function):
    """Round activations; no gradient passes where they are cut off."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
        steps = (_wide(x) / scale).round_() + zero
        ctx.save_for_backward((steps >= 0) & (steps <= 255))
        return ((steps.clamp_(0, 255) - zero) * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * ctx.saved_tensors[0], None, None


class Rounding:
    """Put rounded weights and inputs in place while a layer runs.

    By hooks, which pruning's masks are too, and which keep transformers off their fused kernel: that one reads the
    weights past the layer's own `forward`.

    Args:
        places: Module, attribute and axes that share a step, of each weight.
    """

    def __init__(self, places: list[tuple[nn.Module, str, tuple[int, ...]]]) -> None:
        self.places, self.levels = places, weight_levels()
        self.low = self.high = 0.0
        self.observing, self.seen = True, False
        self.before: list[tuple[nn.Module, str, Any]] = []

    def enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Round the inputs, or learn their range; round the weights."""
        if self.observing:
            self._see(module, args, kwargs)
            return args, kwargs
        for owner, name, axes in self.places:
            if parametrize.is_parametrized(owner, name):
                continue  # what makes the weights rounds them: an attribute would not come before it
            # The attribute comes before the parameter of that name, which stays where it is and trains.
            self.before.append((owner, name, vars(owner).get(name)))
            vars(owner)[name] = _Weights.apply(getattr(owner, name), axes, self.levels)
        if module.training:
            self._see(module, args, kwargs)
        if not self.seen:
            return args, kwargs
        scale, zero = range_of_zero(self.low, self.high)
        return _with_inputs(module, args, kwargs, lambda x: _Activations.apply(x, scale, zero))

    def _see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the inputs' extremes into the range, wholly in calibration, and in training let it follow them."""
        ends: list[tuple[float, float]] = []

        def look(x: torch.Tensor) -> torch.Tensor:
            if x.numel():
                ends.append((float(x.detach().min()), float(x.detach().max())))
            return x

        _with_inputs(module, args, kwargs, look)
        if not ends:
            return
        low, high = min(0.0, *(end for end, _ in ends)), max(0.0, *(end for _, end in ends))
        if self.observing or not self.seen:  # what calibration did not reach has its first range in training
            self.low, self.high, self.seen = min(self.low, low), max(self.high, high), True
        else:
            self.low += FOLLOWING * (low - self.low)
            self.high += FOLLOWING * (high - self.high)

    def settle(self) -> None:
        """Put the weights on their grid for good."""
        for owner, name, axes in self.places:
            weight = getattr(owner, name)
            if parametrize.is_parametrized(owner, name):
                _settle_made(owner, name, weight.detach().clone())
            else:
                weight.copy_(_Weights.apply(weight, axes, self.levels))

    def leave(self, *_: Any) -> None:
        """Take the rounded weights out again."""
        while self.before:
            owner, name, value = self.before.pop()
            if value is None:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = value


class _Grid(nn.Module):
    """Be the last of the parametrizations that make a weight: the rounding."""

    def __init__(self, axes: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.axes, self.levels = axes, levels

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight on its grid."""
        rounded: torch.Tensor = _Weights.apply(weight, self.axes, self.levels)
        return rounded


def _settle_made(owner: nn.Module, name: str, weight: torch.Tensor) -> None:
    """Make a parametrized weight what it was rounded to; where its parametrization can't give that, it goes."""
    made: Any = owner.parametrizations
    del made[name][-1]
    try:
        setattr(owner, name, weight)
        same = torch.allclose(getattr(owner, name), weight, rtol=1e-4, atol=1e-6 * float(weight.abs().max()))
    except (NotImplementedError, ValueError):  # it has no inverse, or none for weights that are rounded
        same = False
    if not same:
        getattr(folded(owner), name).copy_(weight)


def _norms(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            yield name, module


def _wide(x: torch.Tensor) -> torch.Tensor:
    """Return numbers in a dtype that has room for 256 levels and what lies between them."""
    return x.float() if x.dtype.itemsize < 4 else x


ATTENDED = ("query", "key", "value")


def _with_inputs(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a layer's arguments with its activations changed; the masks of an attention are none."""
    attends = isinstance(module, nn.MultiheadAttention)

    def made(x: Any, is_input: bool) -> Any:
        return change(x) if is_input and isinstance(x, torch.Tensor) and x.is_floating_point() else x

    positional = tuple(made(x, not attends or index < len(ATTENDED)) for index, x in enumerate(args))
    return positional, {name: made(x, not attends or name in ATTENDED) for name, x in kwargs.items()}


def _variance(norm: Any) -> np.ndarray[Any, Any]:
    """Return a BatchNorm's variances; NumPy has no bfloat16."""
    return np.array(_wide(norm.running_var).cpu().numpy())


def with_rounding(
    model: nn.Module, context: Context, options: Quantize
) -> tuple[nn.Module, Callable[[nn.Module], nn.Module], tuple[str, ...]]:
    """Put rounding into a model in place.

    Args:
        model: A copy of the user's.
        context: Workload, whose train gives the rows that ranges of activations are taken from.
        options: How many rows.

    Returns:
        The model that trains, what takes the rounding out again, and notes.

    Raises:
        ModelError: It has no layer whose rounding can be trained.
    """
    inside = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    roundings: dict[str, Rounding] = {}
    for module_name, module in model.named_modules():
        places = _places(module) if id(module) not in inside else []
        if places:
            rounding = Rounding(places)
            module.register_forward_pre_hook(rounding.enter, with_kwargs=True)
            module.register_forward_hook(rounding.leave, always_call=True)
            roundings[module_name] = rounding
    if not roundings:
        raise ModelError(
            "linear layers, convolutions or attention, whose rounding can be trained",
            "none in this model",
            "--method static, or --method dynamic for recurrent layers",
        )
    batches, notes = calibration_batches(context, options)
    with torch.no_grad():
        for batch in batches:
            call(model, tensors(model, batch))
    for rounding in roundings.values():
        rounding.observing = False
        for owner, name, axes in rounding.places:
            if parametrize.is_parametrized(owner, name):
                owner.parametrizations[name].append(_Grid(axes, rounding.levels))
    unseen = [name for name, rounding in roundings.items() if not rounding.seen]
    if unseen:
        notes = (*notes, f"no calibration row came to {', '.join(unseen)}: their ranges are taken in training")
    recurrent = [name for name, module in model.named_modules() if isinstance(module, RECURRENT)]
    if recurrent:
        notes = (*notes, f"trained without rounding in recurrent layers: {', '.join(recurrent)}")
    before = {name: _variance(norm) for name, norm in _norms(model)}
    return model, partial(without_rounding, before=before), notes


def without_rounding(model: nn.Module, before: Mapping[str, np.ndarray[Any, Any]] | None = None) -> nn.Module:
    """Take the rounding out, in place, so that a quantizer which calibrates on what is left finds what was trained.

    Args:
        model: What was trained; its weights stay on their grid.
        before: Variances of each BatchNorm before the training, by its name; see `revived`.
    """
    with torch.no_grad():
        for module in model.modules():
            for hook in module._forward_pre_hooks.values():
                rounding = getattr(hook, "__self__", None)
                if isinstance(rounding, Rounding):
                    rounding.settle()
        for name, norm in _norms(model):
            if before and name in before:
                variance = revived(_variance(norm), before[name])
                norm.running_var.copy_(torch.from_numpy(variance))
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), Rounding)]:
                del hooks[key]
        # torch keeps beside each hook how it wants to be called.
        for beside, hooks in (
            (module._forward_hooks_always_called, module._forward_hooks),
            (module._forward_pre_hooks_with_kwargs, module._forward_pre_hooks),
        ):
            for key in [key for key in beside if key not in hooks]:
                del beside[key]
    return model


def _places(module: nn.Module) -> list[tuple[nn.Module, str, tuple[int, ...]]]:
    if isinstance(module, nn.MultiheadAttention):
        names = [n for n in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight") if _has(module, n)]
        found = [(module, name) for name in names]
        found.append((module.out_proj, "weight"))
    elif isinstance(module, PLAIN):
        found = [(module, "weight")]
    else:
        return []
    channel = 1 if isinstance(module, TRANSPOSED) else 0
    places = []
    for owner, name in found:
        dimensions = range(getattr(owner, name).ndim)
        places.append((owner, name, tuple(axis for axis in dimensions if axis != channel)))
    return places


def _has(module: nn.Module, name: str) -> bool:
    return getattr(module, name, None) is not None
