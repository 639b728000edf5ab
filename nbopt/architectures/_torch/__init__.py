"""Lower architectures to torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from nbopt.architectures._torch import parts
from nbopt.architectures._torch.lessons import Lessons, Shared, mixture
from nbopt.architectures.factors import Factors
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.teaching import Teacher


class TorchLowering:
    """Do for a torch module what architectures ask of a framework; see `nbopt.architectures.lowering.Lowering`."""

    kernels = staticmethod(parts.kernels_of)
    blocks = staticmethod(parts.blocks_of)
    cropped = staticmethod(parts.cropped)
    without = staticmethod(parts.without)
    mixture = staticmethod(mixture)

    def layers(self, model: nn.Module) -> Mapping[str, str]:
        """Return the layer of each weight."""
        return {name: name.rpartition(".")[0] for name, _ in model.named_parameters()}

    def lessons(self, model: nn.Module, factors: Factors, sandwich: Sandwich, teacher: Teacher, pace: Pace) -> Any:
        """Return what `Fitting.teach` is where a training of shared weights shall follow the sandwich rule."""
        return Lessons(Shared(model, factors), sandwich, teacher, pace)


LOWERING = TorchLowering()
