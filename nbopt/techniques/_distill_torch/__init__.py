"""Lower distillation to torch: simple students, fewer blocks, names of layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from nbopt.batches import Batch, Inputs
from nbopt.draft import Context
from nbopt.frameworks._torch_teaching import layer_names
from nbopt.techniques._distill.simple import Design
from nbopt.techniques._distill_torch.blocks import shallower
from nbopt.techniques._distill_torch.losses import Array, layers_read
from nbopt.techniques._distill_torch.students import build
from nbopt.techniques._distill_torch.tables import vocabulary


class TorchLowering:
    """Do for torch what distillation needs."""

    def build(self, design: Design, seed: int) -> nn.Module:
        """Return an untrained module of a design, in evaluation mode."""
        return build(design, seed)

    def shallower(self, model: nn.Module, share: float, context: Context) -> tuple[nn.Module, str]:
        """Return a copy of a module with a share of the blocks of its stacks, and what went in words."""
        return shallower(model, share, context)

    def channels(self, model: nn.Module) -> int | None:
        """Return how many channels the first convolution or recurrent layer takes, None where none tells."""
        for module in model.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
                return int(module.in_channels)
            if isinstance(module, nn.RNNBase):
                return int(module.input_size)
        return None

    def vocabulary(self, model: nn.Module, inputs: Inputs) -> int:
        """Return how many different tokens a module can look up: by what it calls, layers or not."""
        return vocabulary(model, inputs)

    def layer_names(self, model: nn.Module, context: Context) -> list[str]:
        """Return the layers whose outputs can be hints."""
        return layer_names(model, context.two_rows)

    def layers_read(
        self, loss: Any, models: tuple[nn.Module, nn.Module], outputs: tuple[Array, Array], batch: Batch
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the layers of student and teacher that a loss reads."""
        return layers_read(loss, models, outputs, batch)


LOWERING = TorchLowering()
