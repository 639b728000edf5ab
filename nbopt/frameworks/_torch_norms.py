"""BatchNorm's statistics in a torch module."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from nbopt.batches import Batch
from nbopt.frameworks._torch_module import call, tensors

NORMS = (nn.modules.batchnorm._BatchNorm,)


def recalibrate(model: nn.Module, batches: Iterator[Batch]) -> int:
    """Measure BatchNorm's statistics again, in place; return how many layers that touched.

    All else stays in evaluation mode: with dropout on, the statistics would be those of another network.
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    model.eval()
    started = False
    try:
        with torch.no_grad():
            for batch in batches:
                if not started:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # the plain mean over batches
                        norm.train()
                    started = True
                if batch.rows > 1:  # one row has no variance
                    call(model, tensors(model, batch.inputs))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
    return len(norms) if started else 0
