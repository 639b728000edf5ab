"""Put Dropout into a torch module, and take it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nbopt.techniques._regularize.places import Site
from nbopt.techniques._regularize_torch.places import DROPOUT


class InputDropout:
    """Drop out what a layer hears, while that layer is in training mode.

    As a hook: a wrapper in the layer's place would rename its weights in every state_dict and hide attributes that a
    user's forward reads, such as `self.head.weight`. In evaluation mode it does nothing, so that copies, exports and
    timings of the model are those without it.

    Args:
        rate: Share that is dropped.
        channels: Drop whole channels, the second axis.
    """

    def __init__(self, rate: float, *, channels: bool = False) -> None:
        self.rate, self.channels = rate, channels

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Return the arguments with the first tensor dropped out."""
        if not module.training:
            return None
        if args:
            return (self._dropped(args[0]), *args[1:]), kwargs
        name = next(iter(kwargs))
        return args, {**kwargs, name: self._dropped(kwargs[name])}

    def _dropped(self, x: Any) -> Any:
        if isinstance(x, nn.utils.rnn.PackedSequence):
            return x._replace(data=functional.dropout(x.data, self.rate))
        if not isinstance(x, torch.Tensor):
            return x
        if not self.channels:
            return functional.dropout(x, self.rate)
        # Over (rows, channels), whatever comes after: dropout2d and its siblings insist on a number of axes.
        mask = functional.dropout(torch.ones(x.shape[:2], dtype=x.dtype, device=x.device), self.rate)
        return x * mask.reshape(*x.shape[:2], *([1] * (x.ndim - 2)))


def put(model: nn.Module, sites: Sequence[Site]) -> None:
    """Put Dropout in place, or change the rates of what is there."""
    for site in sites:
        module: Any = model.get_submodule(site.name)
        if site.how == "existing" and isinstance(module, DROPOUT):
            module.p = site.rate
        elif site.how in ("existing", "between"):
            module.dropout = site.rate
        else:
            hook = InputDropout(site.rate, channels=site.how == "channels")
            module.register_forward_pre_hook(hook, with_kwargs=True)


def take_out(model: nn.Module) -> int:
    """Take Dropout out, in place; return in how many places there was some.

    Dropout layers become identities. The rates inside of recurrent and attention layers become 0.
    """
    count = 0
    for module in list(model.modules()):
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, InputDropout):
                # A copy of a module has no handles of its hooks; they are found in torch's own dictionaries.
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                count += 1
        if getattr(module, "dropout", None) and isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
            module.dropout = 0.0
            count += 1
        for name, child in list(module.named_children()):
            if isinstance(child, DROPOUT):
                setattr(module, name, nn.Identity())
                count += 1
    return count
