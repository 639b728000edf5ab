"""What distillation asks of a framework: a simple student, fewer blocks, the names of layers."""

from __future__ import annotations

from typing import Any, Protocol

from nbopt.draft import Context, lowering_module
from nbopt.techniques._distill.simple import Design


class Lowering(Protocol):
    """Be `nbopt.techniques._distill_FRAMEWORK`."""

    def build(self, design: Design, seed: int) -> Any:
        """Return an untrained model of a design, in evaluation mode."""
        ...

    def shallower(self, model: Any, share: float, context: Context) -> tuple[Any, str]:
        """Return a copy of a model with a share of the blocks of its stacks, and what went in words.

        Raises:
            ModelError: There is no stack of blocks that can be left out.
        """
        ...

    def channels(self, model: Any) -> int | None:
        """Return how many channels the first convolution or recurrent layer takes, None where none tells."""
        ...

    def layer_names(self, model: Any, context: Context) -> list[str]:
        """Return the layers whose outputs can be hints: those that are called, and give a row for each row.

        Raises:
            ModelError: What layers of such a model give can't be had.
        """
        ...


def lowering_of(context: Context) -> Lowering:
    """Return the lowering to the workload's framework."""
    module = lowering_module(context, "nbopt.techniques._distill_", "distill")
    lowering: Lowering = module.LOWERING
    return lowering
