"""Lower pruning to tf_keras: by TF-MOT where it can do what is asked for, and by the masks that Keras 3 has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nbopt.batches import Inputs
from nbopt.errors import MissingExtra, ModelError
from nbopt.frameworks._tf_keras_tfmot import PACKAGE, has_tfmot
from nbopt.narrowing._keras import KerasLowering
from nbopt.narrowing.lowering import InLayers


class TfKerasLowering(KerasLowering):
    """Do for a tf_keras model what pruning asks of a framework; see `nbopt.narrowing.lowering.Lowering`."""

    def in_layers(
        self, model: Any, names: Sequence[str], share: float, schedule: str, rounds: int, ramp: float
    ) -> tuple[InLayers | None, str]:
        """Return the model with TF-MOT's wrappers, or None and why TF-MOT does not take it."""
        own = "so the masks are nbopt's own"
        if not has_tfmot():
            missing = MissingExtra(PACKAGE, "tf-keras", "TF-MOT's prune_low_magnitude")
            return None, f"{missing.one_line}; {own}"
        from nbopt.narrowing._tf_keras.wrapping import wrapped

        found = wrapped(model, names, share, schedule, rounds, ramp)
        return (None, f"{found}, {own}") if isinstance(found, str) else (found, "")

    def trace(self, model: Any, example: Inputs) -> Any:
        """Refuse: channels are taken out of the graph of Keras 3.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            "a model of Keras 3 or torch, to take channels out of",
            f"the tf_keras model {model.name!r}",
            "leave --structured out, or build it with keras.layers and copy the weights: "
            "new.set_weights(old.get_weights())",
        )


LOWERING = TfKerasLowering()
