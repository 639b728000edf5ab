"""Keras 2, as the package tf_keras has it: what differs from Keras 3, whose verbs are shared."""

from __future__ import annotations

import sys
from typing import Any

from nbopt.errors import ModelError
from nbopt.frameworks._keras_dialect import LEGACY
from nbopt.frameworks.keras import KerasFramework


class TfKerasFramework(KerasFramework):
    """Do for `tf_keras.Model` what techniques need. It is imported once tf_keras is."""

    name = LEGACY
    family = "keras"

    def owns(self, model: Any) -> bool:
        """Tell whether `model` is a `tf_keras.Model`.

        Raises:
            ModelError: It is one that has no weights yet.
        """
        module = sys.modules.get(LEGACY)
        if module is None or not isinstance(model, module.Model):
            return False
        if not model.built:
            raise ModelError(
                "a model with weights",
                f"{type(model).__name__} {model.name!r}, which has not been built",
                "train it, or call it once on a batch: model(x)",
            )
        return True

    def native_halves(self, model: Any) -> tuple[str, ...]:
        """Refuse: layers of Keras 2 take a dtype policy when they are made.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            "a model of Keras 3 or torch, whose layers can be told to compute in half precision for a training alone",
            f"the tf_keras model {model.name!r}",
            "leave amp out, or build it with keras.layers and copy the weights: new.set_weights(old.get_weights())",
        )


FRAMEWORK = TfKerasFramework()
