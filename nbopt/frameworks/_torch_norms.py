"""BatchNorm's statistics in a torch module."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from nbopt.batches import Batch
from nbopt.frameworks._torch_module import call, tensors
from nbopt.misfits import ONE_ROW

NORMS = (nn.modules.batchnorm._BatchNorm,)


def recalibrate(model: nn.Module, batches: Iterator[Batch]) -> int:
    """Measure BatchNorm's statistics again, in place; return how many layers that touched.

    All else stays in evaluation mode: with dropout on, the statistics would be those of another network.
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    if not norms:
        return 0
    kept = [(norm, norm.momentum, {name: part.clone() for name, part in norm.named_buffers()}) for norm in norms]
    model.eval()
    measured = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        with torch.no_grad():
            for batch in batches:
                try:
                    call(model, tensors(model, batch.inputs))
                except ValueError as error:
                    if batch.rows > 1 or ONE_ROW not in str(error):
                        raise
                    continue  # one row has no variance, unless it is a picture
                measured += 1
    finally:
        for norm, momentum, before in kept:
            norm.momentum = momentum
            if not measured:
                norm.load_state_dict(before, strict=False)
        model.eval()
    return len(norms) if measured else 0
