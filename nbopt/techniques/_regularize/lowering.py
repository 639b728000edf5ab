"""What regularization asks of a framework: where layers are, Dropout and norms put in, and both taken out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from nbopt.batches import Batch, Inputs
from nbopt.draft import Context, lowering_module
from nbopt.techniques._regularize.places import Place, Site


class Lowering(Protocol):
    """Be `nbopt.techniques._regularize_FRAMEWORK`. Models that come in are copies, which may be changed."""

    def places(self, model: Any, example: Inputs) -> list[Place]:
        """Return the layers that Dropout and norms could go to, in the order in which they are called."""
        ...

    def with_dropout(self, model: Any, sites: Sequence[Site]) -> Any:
        """Return the model with Dropout.

        Raises:
            ModelError: No layer can be put into this model.
        """
        ...

    def with_norms(self, model: Any, kind: str, places: Sequence[Place], batches: Iterable[Batch]) -> Any:
        """Return the model with norms after some layers, set by what those give on the batches.

        Raises:
            ModelError: No layer can be put into this model.
        """
        ...

    def deployed(self, model: Any, example: Inputs) -> tuple[Any, int, int]:
        """Return the model without Dropout and with BatchNorm folded, and of how many layers that was."""
        ...


def lowering_of(context: Context) -> Lowering:
    """Return the lowering to the workload's framework."""
    module = lowering_module(context, "nbopt.techniques._regularize_", "regularize")
    lowering: Lowering = module.LOWERING
    return lowering
