"""What in a torch module can be made narrower, and the narrower module."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.batches import Inputs
from nbopt.errors import ModelError
from nbopt.frameworks._torch_module import call, clone, folded, tensors
from nbopt.narrowing._torch import attention, recurrent
from nbopt.narrowing._torch.groups import find_widths, first_line, listed
from nbopt.narrowing._torch.weights import put_zeros
from nbopt.narrowing.widths import Width, kept_places, unit_masks

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4
"""Largest difference, relative to the largest output, between the narrower module and the one with zeros.

Sums in another order differ by 1e-6. With 1e-3, weights as they are drawn at first, whose attention is nearly even, hid
that channels of different heads were mixed."""
ROUNDINGS = 8
"""Where the output is a half precision: the same in steps of its last digit."""
SHARES = 7
"""Widths that are tried together lose so many different shares of their units."""
STOPPED = (RuntimeError, IndexError, ValueError, TypeError, AssertionError)
"""What a user's `forward` raises on widths that it does not expect."""


class TracedModule:
    """Know what can be made narrower in a torch module, each part tried on a row of data.

    Args:
        model: It is not changed.
        example: One row of inputs.

    Raises:
        ModelError: The dependency graph can't be traced, or no layer has units to give.
    """

    def __init__(self, model: nn.Module, example: Inputs) -> None:
        # torch-pruning can't slice what a parametrization computes, nor torch's own attention lose a head, and does not
        # know the transposed linear layer of GPT-2.
        self.model = attention.with_lines(attention.with_slim_attention(folded(clone(model))))
        self.inputs = tensors(self.model, example)
        self.widths, self.notes = find_widths(self.model, self.inputs)
        gc.collect()  # the graph that was followed holds a copy of the model, and goes round in circles
        self.notes += self._without_broken()
        if not self.widths:
            raise ModelError(
                "layers whose channels can be taken out",
                "none: every layer makes the output, is tied to one that does, or can't be followed"
                + "".join(f"; {note}" for note in self.notes),
                "prune without --structured",
            )

    def remove(self, model: nn.Module, going: Mapping[str, Array]) -> nn.Module:
        """Return a copy without some units."""
        smaller = narrowed(model, self.widths, going)
        try:
            with torch.no_grad():
                call(smaller, self.inputs)
        except STOPPED as error:
            raise ModelError(
                "a model whose layers can be made narrower",
                f"one that stopped with {type(error).__name__}: {first_line(error)}",
                "prune without --structured, or rewrite reshapes that name a fixed number of channels (flatten(1), -1)",
            ) from error
        return smaller

    def _without_broken(self) -> list[str]:
        """Leave out the widths without which the model does not compute what its zeros say; return notes on them."""
        # A stream is left as it is unless somebody asks for it, and where units go by rank, no two widths lose alike: a
        # reshape of three times the stream's width, as of queries, keys and values from one layer, must fail here.
        rest = [width for width in self.widths if not width.normed]
        if not (self._broken(self.widths) or (len(rest) < len(self.widths) and self._broken(rest))):
            return []
        told: dict[str, tuple[str, list[str]]] = {}
        sound: list[Width] = []
        # One after another, since some are well alone and not together; last the streams, with which outputs differ.
        for width in (*rest, *(width for width in self.widths if width.normed)):
            reason = self._broken([*sound, width])
            if reason:
                kind = reason.partition("(")[0]  # what follows is of this width: of all alike one is told
                told.setdefault(kind, (reason, []))[1].append(width.name)
            else:
                sound.append(width)
        names = {width.name for width in sound}
        self.widths = [width for width in self.widths if width.name in names]
        return [f"{listed(kept)} {_kept(kept)}: {reason}" for reason, kept in told.values()]

    def _broken(self, widths: Sequence[Width]) -> str:
        """Return why the model can't do without some of these units, "" where it can.

        The narrower model is compared with the whole one in which the same units are zero. They go by chance, since a
        gate of two halves of a layer takes what goes evenly; half of the first width, of each further one another
        share.
        """
        if not widths:
            return ""
        rng = np.random.default_rng(0)
        going = {
            width.name: np.sort(rng.permutation(width.size)[: max(1, width.size // (2 + index % SHARES))])
            for index, width in enumerate(widths)
        }
        shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters()}
        silent = clone(self.model)
        put_zeros(silent, unit_masks(widths, going, shapes), {})
        with torch.no_grad():
            expected = call(silent, self.inputs)
            del silent  # one copy at a time: a large model may just fit
            try:
                came = call(narrowed(self.model, widths, going), self.inputs)
            except STOPPED as error:
                return f"the model stops without ({first_line(error)}); write flatten(1) or -1 for a number of channels"
        if came.shape != expected.shape:
            return f"outputs of shape {tuple(came.shape)} come of it; write flatten(1) or -1 for a number of channels"
        if any(width.normed for width in widths) or not expected.numel():
            return ""  # a normalization over fewer units gives other numbers, as it should
        worst = float((came - expected).abs().max())
        digit = torch.finfo(expected.dtype).eps if expected.dtype.is_floating_point else 0.0
        tolerance = max(TOLERANCE, ROUNDINGS * digit)
        if worst > tolerance * max(0.1, float(expected.abs().max())):
            return "its units can't be followed through the layers after it"
        return ""


def narrowed(model: nn.Module, widths: Sequence[Width], going: Mapping[str, Array]) -> nn.Module:
    """Return a copy of the model without some units. What is sliced is not copied whole first."""
    places = kept_places(widths, going)
    parameters = list(model.named_parameters(remove_duplicate=False))
    whole = {id(value) for name, value in parameters if name not in places}
    model = clone(model, [value for name, value in parameters if name in places and id(value) not in whole])
    modules = dict(model.named_modules())
    values = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    touched: dict[str, dict[str, torch.Tensor]] = {}
    for weight, axes in places.items():
        owner, _, name = weight.rpartition(".")
        value = values[weight].detach()
        for axis, stays in axes.items():
            value = value.index_select(axis, torch.from_numpy(np.flatnonzero(stays)).to(value.device))
        touched.setdefault(owner, {})[name] = value
    for owner, changed in touched.items():
        module = modules[owner]
        for name, value in changed.items():
            old = getattr(module, name)
            if isinstance(old, nn.Parameter):
                module.register_parameter(name, nn.Parameter(value, requires_grad=old.requires_grad))
            else:
                module.register_buffer(name, value)
        _resize(module)
    for width in widths:
        if width.kind == "heads" and len(going.get(width.name, ())):
            parent_module = modules[width.layers[0].rpartition(".")[0]]
            attention.set_heads(parent_module, width.size, width.size - len(going[width.name]))
    return model


def _kept(names: Sequence[str]) -> str:
    return "keeps its width" if len(names) == 1 else "keep their width"


def _resize(module: nn.Module) -> None:
    """Write the sizes that a layer's weights now have into its attributes."""
    if isinstance(module, nn.RNNBase):
        recurrent.resize(module)
        return
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor):
        return
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.conv._ConvNd):
        outs, ins = (1, 0) if module.transposed else (0, 1)
        if module.groups > 1:  # depthwise: a channel in, a channel out
            module.groups = module.in_channels = module.out_channels = weight.shape[0]
        else:
            module.out_channels, module.in_channels = weight.shape[outs], weight.shape[ins]
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = len(weight)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = len(weight) if module.num_groups > 1 else 1
        module.num_channels = len(weight)
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        module.embedding_dim = weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(weight)
