"""Prune: set weights to zero one by one, or take whole channels out."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nbopt.errors import ModelError
from nbopt.technique import Context, Draft, Technique, option

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Prune(Technique):
    """Remove the weights, or the channels, of least magnitude, and fine-tune what is left.

    Unstructured: the smallest weights of all layers together become zero (Han et al. 2015,
    https://arxiv.org/abs/1506.02626). The file deflates better; dense kernels are not faster for zeros.
    Structured: whole channels are removed, with everything that depends on them (torch: DepGraph, Fang et al. 2023,
    https://arxiv.org/abs/2301.12900), so that file and latency shrink on every runtime.
    """

    word: ClassVar[str] = "prune"
    summary: ClassVar[str] = "fewer weights or channels, then fine-tuning"

    sparsity: float = option(
        0.5, "share of weights set to zero, or of each layer's channels taken out", low=0.0, high=1.0, open_ends=True
    )
    structured: bool = option(False, "take out whole channels instead of single weights")
    epochs: int = option(1, "passes over train to fine-tune; 0 for none", low=0, high=10_000)
    learning_rate: float = option(
        1e-3, "step size that fine-tuning starts from; it falls to 0 along a cosine", low=0.0, high=10.0, open_ends=True
    )

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with a pruned copy of the model and fine-tuning in its plan.

        Raises:
            ModelError: There is nothing to prune, or the layers can't be taken apart.
        """
        framework = context.workload.framework
        lowering = importlib.import_module(f"nbopt.techniques._prune_{framework.name}")
        model = framework.clone(draft.model)
        if self.structured:
            model, notes = lowering.remove_channels(model, self.sparsity, context.workload.signature.example)
            draft = draft.with_(model=model).noted(*notes)
        else:
            masks = magnitude_masks(lowering.prunable_weights(model), self.sparsity)
            hold, finish = lowering.with_masks(model, masks)
            note = "zeros make the deflated file smaller; dense kernels are not faster for them"
            draft = draft.with_(model=model, hold=(*draft.hold, hold), finish=(*draft.finish, finish)).noted(note)
        if not self.epochs:
            return draft
        # One training for the whole recipe: as long as the longest that a step asks for.
        epochs = max(draft.plan.epochs, self.epochs)
        plan = draft.plan.adjusted(epochs=epochs, learning_rate=self.learning_rate, schedule="cosine")
        return draft.with_(plan=plan)

    @property
    def label(self) -> str:
        """Return "prune 0.5 structured" or "prune 0.5 unstructured"."""
        return f"prune {self.sparsity:g} {'structured' if self.structured else 'unstructured'}"


def magnitude_masks(weights: Mapping[str, Array], sparsity: float) -> dict[str, Array]:
    """Return which weights stay: the largest by absolute value, over all layers together.

    Args:
        weights: Each layer's weights by name, any shapes.
        sparsity: Share of all weights that goes, 0 to 1, both excluded. Exactly round(sparsity * total) go; of
            equal weights at the threshold those that come first.

    Raises:
        ModelError: There are no weights.
    """
    if not weights:
        raise ModelError(
            "layers with weights to prune (linear, convolution, recurrent)",
            "none in this model",
            "choose another technique",
        )
    sizes = [array.size for array in weights.values()]
    magnitudes = np.concatenate([np.abs(array).ravel() for array in weights.values()])
    going = round(sparsity * magnitudes.size)
    keep = np.ones(magnitudes.size, dtype=bool)
    if going:
        # A stable choice among ties, so that the same model is pruned alike everywhere.
        threshold = np.partition(magnitudes, going - 1)[going - 1]
        below = magnitudes < threshold
        ties = np.flatnonzero(magnitudes == threshold)[: going - int(below.sum())]
        keep[below] = False
        keep[ties] = False
    parts = np.split(keep, np.cumsum(sizes)[:-1])
    return {name: part.reshape(array.shape) for (name, array), part in zip(weights.items(), parts, strict=True)}
