"""Lower architectures to Keras 3."""

from __future__ import annotations

from typing import Any

from nbopt.architectures._keras import parts
from nbopt.architectures._keras.lessons import Lessons, Shared, mixture
from nbopt.architectures.factors import Factors
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.teaching import Teacher


class KerasLowering:
    """Do for a Keras model what architectures ask of a framework; see `nbopt.architectures.lowering.Lowering`."""

    kernels = staticmethod(parts.kernels_of)
    blocks = staticmethod(parts.blocks_of)
    layers = staticmethod(parts.layer_names)
    cropped = staticmethod(parts.cropped)
    without = staticmethod(parts.without)
    mixture = staticmethod(mixture)

    def lessons(self, model: Any, factors: Factors, sandwich: Sandwich, teacher: Teacher, pace: Pace) -> Any:
        """Return what `Fitting.teach` is where a training of shared weights shall follow the sandwich rule."""
        return Lessons(Shared(model, factors), sandwich, teacher, pace)


LOWERING = KerasLowering()
