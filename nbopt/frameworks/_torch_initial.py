"""A torch module's weights drawn anew, as its layers' own initialisers draw them."""

from __future__ import annotations

import torch

from nbopt.errors import ModelError
from nbopt.frameworks._torch_module import device_of
from nbopt.frameworks._torch_random import seeded


def initialise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draw all weights anew, in place, and return the model; the user's random state stays as it is.

    Raises:
        ModelError: A layer has weights and no `reset_parameters`.
    """
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with seeded(seed, device_of(model)), torch.no_grad():
        for parameter in model.parameters():
            if parameter.dtype.is_floating_point:
                parameter.fill_(torch.nan)  # so that what no layer draws is known afterwards
        for module in model.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if callable(reset):
                reset()
        left = [name for name, p in model.named_parameters() if bool(torch.isnan(p).any())]
        for name, parameter in model.named_parameters():
            if name in left:
                parameter.copy_(before[name])
    # A vector may stay as it is, such as a scale; a matrix tells what was learned.
    kept = [name for name in left if before[name].ndim > 1]
    if kept:
        raise ModelError(
            "layers that can draw their weights anew (reset_parameters)",
            f"none for {', '.join(kept[:4])}{', ...' if len(kept) > 4 else ''}",
            "bind the untrained model, and leave --from-scratch out",
        )
    return model
