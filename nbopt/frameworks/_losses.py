"""A loss to train with, and the same loss with smoothed labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nbopt.errors import ModelError

Loss = Callable[[Any, Any, Any], Any]
"""loss(output, target, weight or None) -> scalar tensor."""


@dataclass(frozen=True)
class TrainingLoss:
    """Compute a loss, and know what smoothed labels make of it.

    Args:
        value: `loss(output, target, weight or None) -> scalar`.
        smooth: Returns the loss whose labels give a share, in (0, 1), to all classes alike; None where it can't.
        refusal: Why it can't: what came, and what to do.
    """

    value: Loss
    smooth: Callable[[float], Loss] | None = None
    refusal: tuple[str, str] = ("", "")

    def __call__(self, output: Any, target: Any, weight: Any) -> Any:
        """Return the loss as the framework's scalar."""
        return self.value(output, target, weight)

    def smoothed(self, share: float) -> TrainingLoss:
        """Return the loss with labels that give `share` to all classes alike (Szegedy et al. 2016).

        A label of K classes becomes (1 - share) for its own and share/K for each; one that is yes or no becomes
        (1 - share) of itself and share/2.

        Raises:
            ModelError: The loss is of values, or the user's own, in which the labels are not known.
        """
        if self.smooth is None:
            raise ModelError("a loss of classes, whose labels can be smoothed", *self.refusal)
        return replace(self, value=self.smooth(share), smooth=None, refusal=("one that smooths them already", ""))


INFERRED: dict[str, str] = {
    "logits": "cross-entropy of logits (inferred)",
    "probabilities": "cross-entropy of probabilities (inferred)",
    "log_probabilities": "negative log-likelihood (inferred)",
    "binary_logits": "binary cross-entropy of logits (inferred)",
    "multilabel_logits": "binary cross-entropy of logits, a label each (inferred)",
    "binary_probabilities": "binary cross-entropy of probabilities (inferred)",
    "multilabel_probabilities": "binary cross-entropy of probabilities, a label each (inferred)",
    "regression": "mean squared error (inferred)",
}
"""Plain name of the loss that an output's meaning asks for."""

OF_VALUES = ("one of values: there are no classes to share a label with", "leave --label-smoothing out")
ALREADY = ("a loss that smooths labels already", "leave --label-smoothing out, or take it out of your loss")


def unknown(name: str) -> tuple[str, str]:
    """Return the refusal of a user's own loss."""
    return (
        f"{name}, your own, in which only you know where the labels are",
        "smooth them there, or leave --label-smoothing out",
    )
