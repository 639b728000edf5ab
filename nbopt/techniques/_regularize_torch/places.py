"""Find in a torch module the layers that Dropout and norms could go to, in the order in which they are called."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from nbopt.batches import Inputs, map_leaves
from nbopt.frameworks._torch_module import call, clone, tensors
from nbopt.frameworks._torch_norms import NORMS
from nbopt.techniques._regularize.places import Place

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ALL_NORMS = (*NORMS, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
ROWS = 2


@dataclass
class Traced:
    """Know which layers were called, and which hear which.

    Args:
        places: As called.
        followed: For each norm the layer whose outputs it alone hears first, by name.
    """

    places: list[Place] = field(default_factory=list)
    followed: dict[str, str] = field(default_factory=dict)


def traced(model: nn.Module, example: Inputs) -> Traced:
    """Call a copy of the model once, and return what was called.

    Whether a layer hears the data or other layers is told by autograd: what depends on a weight requires a gradient.
    Embeddings count as data.
    """
    twin = clone(model)
    names = {module: name for name, module in twin.named_modules()}
    for module in twin.modules():
        weighted = isinstance(module, (*LINEAR, *CONV, *RECURRENT, nn.MultiheadAttention))
        for parameter in module.parameters(recurse=False):
            if parameter.dtype.is_floating_point:
                parameter.requires_grad_(weighted)
    recorder = _Recorder(names)
    handles = [
        module.register_forward_hook(recorder, with_kwargs=True)
        for module in names
        if isinstance(module, (*LINEAR, *CONV, *RECURRENT, *DROPOUT, *ALL_NORMS, nn.MultiheadAttention))
    ]
    with torch.enable_grad():
        call(twin, tensors(twin, map_leaves(lambda leaf: leaf.repeat(ROWS, axis=0), example)))
    for handle in handles:
        handle.remove()
    normed = set(recorder.result.followed.values())
    recorder.result.places = [replace(place, normed=place.name in normed) for place in recorder.result.places]
    return recorder.result


class _Recorder:
    def __init__(self, names: dict[nn.Module, str]) -> None:
        self.names, self.result = names, Traced()
        self.kept: list[torch.Tensor] = []  # alive, so that no other tensor gets their addresses
        self.dropped: set[int] = set()
        self.makers: dict[int, str] = {}

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        name = self.names[module]
        heard, made = _first(args) if args else _first(tuple(kwargs.values())), _first(output)
        if heard is None or made is None:
            return
        self.kept += [heard, made]
        place = Place(
            name,
            "linear",
            hidden=heard.requires_grad,
            source=heard.data_ptr(),
            dropped=heard.data_ptr() in self.dropped,
        )
        if isinstance(module, DROPOUT):
            self.dropped.add(made.data_ptr())
            self.result.places.append(replace(place, kind="dropout", rate=float(module.p)))
        elif isinstance(module, ALL_NORMS):
            maker = self.makers.get(heard.data_ptr())
            if maker is not None and name not in self.result.followed:
                self.result.followed[name] = maker
        elif isinstance(module, nn.MultiheadAttention):
            self.result.places.append(replace(place, kind="attention", rate=float(module.dropout)))
        elif isinstance(module, RECURRENT):
            kind: Any = "stack" if module.num_layers > 1 else "recurrent"
            self.result.places.append(replace(place, kind=kind, rate=float(module.dropout)))
        elif isinstance(module, CONV):
            self.makers[made.data_ptr()] = name
            depthwise = module.groups > 1 and module.groups == module.in_channels
            found = replace(place, kind="conv", depthwise=depthwise, channels=module.out_channels)
            self.result.places.append(replace(found, size=tuple(heard.shape[2:])))
        else:
            self.makers[made.data_ptr()] = name
            self.result.places.append(replace(place, channels=module.out_features))


def _first(value: Any) -> torch.Tensor | None:
    if isinstance(value, nn.utils.rnn.PackedSequence):
        return value.data
    if isinstance(value, (tuple, list)):
        return next((found for found in map(_first, value) if found is not None), None)
    return value if isinstance(value, torch.Tensor) else None
