"""A loss of torchdistill, or of its form, in place of the divergence: which layers it reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.arrays import to_numpy
from nbopt.batches import Batch
from nbopt.errors import OptionError
from nbopt.frameworks._torch_layer_io import paths_read
from nbopt.frameworks._torch_module import device_of
from nbopt.frameworks._torch_teaching import loss_on

Array = np.ndarray[Any, Any]


def layers_read(
    loss: Any, models: tuple[nn.Module, nn.Module], outputs: tuple[Array, Array], batch: Batch
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers of student and teacher that a loss reads; see `Lowering`."""
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise OptionError(
            "distill --loss without weights of its own, since only the student is trained",
            f"{type(loss).__name__} with {sum(p.numel() for p in loss.parameters()):,}",
            "--hints, which compares layers of other widths without any",
        )
    device = device_of(models[0])
    parts = (*outputs, np.asarray(to_numpy(batch.targets)))
    said, taught, target = (torch.from_numpy(np.array(each)).to(device) for each in parts)
    return paths_read(loss_on(loss, device), models, (said, taught), batch.inputs, target)
