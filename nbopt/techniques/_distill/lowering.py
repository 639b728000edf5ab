"""What distillation asks of a framework: a simple student, fewer blocks, the names of layers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from nbopt.batches import Batch, Inputs
from nbopt.draft import Context, lowering_module
from nbopt.techniques._distill.simple import Design

Array = np.ndarray[Any, Any]


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

    def vocabulary(self, model: Any, inputs: Inputs) -> int:
        """Return how many different tokens a model can look up: rows of its largest table, 0 where it has none.

        Args:
            model: It stays as it is.
            inputs: Of two rows or more.
        """
        ...

    def layer_names(self, model: Any, context: Context) -> list[str]:
        """Return the layers whose outputs can be hints: those that are called, and give a row for each row.

        Raises:
            ModelError: What layers of such a model give can't be had.
        """
        ...

    def layers_read(
        self, loss: Any, models: tuple[Any, Any], outputs: tuple[Array, Array], batch: Batch
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the layers of student and teacher that a loss reads, by trying it on rows.

        Args:
            loss: It is not changed.
            models: Student and teacher.
            outputs: Theirs for the batch, in normal form.
            batch: Labelled rows.

        Raises:
            ModelError: It does not run on what these models give, or the framework takes no such loss.
            OptionError: It reads a layer that is not there, or has weights that nothing would train.
        """
        ...


def lowering_of(context: Context) -> Lowering:
    """Return the lowering to the workload's framework."""
    module = lowering_module(context, "nbopt.techniques._distill_", "distill")
    lowering: Lowering = module.LOWERING
    return lowering
