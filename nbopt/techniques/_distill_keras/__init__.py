"""Lower distillation to Keras: simple students, and names of layers."""

from __future__ import annotations

from typing import Any

import keras

from nbopt.batches import Batch, Inputs
from nbopt.draft import Context
from nbopt.errors import ModelError
from nbopt.frameworks._keras_dialect import layers_of
from nbopt.frameworks._keras_teaching import layer_names
from nbopt.techniques._distill.lowering import Array
from nbopt.techniques._distill.simple import Design
from nbopt.techniques._distill_keras.students import build


class KerasLowering:
    """Do for Keras what distillation needs."""

    def build(self, design: Design, seed: int) -> Any:
        """Return an untrained functional model of a design."""
        return build(design, seed)

    def shallower(self, model: Any, share: float, context: Context) -> tuple[Any, str]:
        """Refuse: a functional model is a graph in which nothing says what a block is.

        Raises:
            ModelError: Always.
        """
        del share, context
        raise ModelError(
            "a PyTorch model for --depth",
            f"{type(model).__name__} of Keras, in whose graph nothing says what a block is",
            "leave --depth out (--width takes units out), or --student with a shallower model of your own",
        )

    def channels(self, model: Any) -> int | None:
        """Return None: in Keras channels come last."""
        del model
        return None

    def vocabulary(self, model: Any, inputs: Inputs) -> int:
        """Return how many different tokens a model can look up, by its layers that do."""
        del inputs
        layers = keras.layers
        sizes = [0]
        for layer in layers_of(model):
            if isinstance(layer, layers.Embedding):
                sizes.append(int(layer.input_dim))
            elif isinstance(layer, layers.CategoryEncoding):
                sizes.append(int(layer.num_tokens or 0))
            elif isinstance(layer, layers.Hashing):
                sizes.append(int(layer.num_bins))
            elif isinstance(layer, layers.IntegerLookup):
                sizes.append(int(layer.vocabulary_size()))
        return max(sizes)

    def layer_names(self, model: Any, context: Context) -> list[str]:
        """Return the layers whose outputs can be hints."""
        del context
        return layer_names(model)

    def layers_read(
        self, loss: Any, models: tuple[Any, Any], outputs: tuple[Array, Array], batch: Batch
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Refuse: such losses are torch's.

        Raises:
            ModelError: Always.
        """
        del loss, outputs, batch
        raise ModelError(
            "a PyTorch model for --loss, which is a loss of torchdistill or of its form",
            f"{type(models[0]).__name__} of Keras",
            "leave --loss out (--method decoupled is another loss)",
        )


LOWERING = KerasLowering()
