"""What is asked of a framework, beside what narrowing asks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from nbopt.architectures.factors import Factors
from nbopt.architectures.parts import Block, Kernel
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.batches import Batch, Inputs
from nbopt.draft import Context, lowering_module
from nbopt.teaching import Teacher

Array = np.ndarray[Any, Any]


class Lowering(Protocol):
    """Be `nbopt.architectures._FRAMEWORK`."""

    def kernels(self, model: Any) -> list[Kernel]:
        """Return the convolutions whose kernels can be cropped."""
        ...

    def blocks(self, model: Any, inputs: Inputs) -> list[Block]:
        """Return the residual blocks that keep their shape, the innermost ones."""
        ...

    def layers(self, model: Any) -> Mapping[str, str]:
        """Return the layer of each weight, by the names that narrowing gives weights and this gives blocks."""
        ...

    def cropped(self, model: Any, kernels: Mapping[str, int]) -> Any:
        """Return the model with smaller kernels; the given one may be changed."""
        ...

    def without(self, model: Any, blocks: frozenset[str]) -> Any:
        """Return the model without some blocks; the given one may be changed."""
        ...

    def lessons(self, model: Any, factors: Factors, sandwich: Sandwich, teacher: Teacher, pace: Pace) -> Any:
        """Return what `Fitting.teach` is where a training of shared weights shall follow the sandwich rule.

        Args:
            model: What trains.
            factors: Its candidates.
            sandwich: Which of them each step computes.
            teacher: How far a candidate is from the whole model: kind and axis of the output; see `whole_as_teacher`.
            pace: How much of the training is done.
        """
        ...

    def mixture(
        self, model: Any, factors: Factors, loss: Any, batch: Batch, weights: Sequence[Array]
    ) -> tuple[float, list[Array]]:
        """Return the loss of a mixture of all options on a batch, and its gradients: a step of `Relaxed`.

        Args:
            model: The whole model; in evaluation mode but for BatchNorm, which takes the batch's own statistics, since
                a mixture has none of its own.
            factors: Its candidates.
            loss: The workload's, in the framework's form.
            batch: With labels.
            weights: For each choice the share of each option in the mixture.
        """
        ...


def lowering_of(context: Context) -> Lowering:
    """Return the lowering to the workload's framework.

    Raises:
        ModelError: There is none.
    """
    lowering: Lowering = lowering_module(context, "nbopt.architectures._", "nas").LOWERING
    return lowering


def whole_as_teacher(kind: str, axis: int = -1) -> Teacher:
    """Return the teacher that the whole model is to its candidates: it alone counts, its probabilities as they are.

    Args:
        kind: What the output means, an OutputKind.
        axis: Where its classes are, 1 or -1.
    """

    def nothing(_: Inputs) -> Array:
        # What is taught is the output of the step itself; nobody asks for it in another way.
        raise NotImplementedError

    return Teacher(nothing, kind, axis, temperature=1.0, alpha=1.0)
