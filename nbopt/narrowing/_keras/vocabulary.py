"""Embedding tables of a Keras model with one row for all that nobody looks up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Batch
from nbopt.frameworks._keras_call import model_arguments
from nbopt.frameworks._keras_copy import copy_model, follow_weights, twin, uncompiled
from nbopt.frameworks._keras_dialect import is_graph, layers_of, objects_by_name, own_variables
from nbopt.narrowing.vocabulary import OWN, places, smaller_table

Array = np.ndarray[Any, Any]


@keras.saving.register_keras_serializable(package="nbopt")
class SharedRows(keras.layers.Embedding):
    """Look rows up in a smaller table, in which the rows that went share the last.

    Args:
        input_dim: Rows of the smaller table.
        output_dim: Width of a row.
        rows: Rows of the whole table, which is what inputs count.
        options: Those of an Embedding.
    """

    def __init__(self, input_dim: int, output_dim: int, rows: int, **options: Any) -> None:
        super().__init__(input_dim, output_dim, **options)
        self.rows = rows

    def build(self, input_shape: Any = None) -> None:
        """Make the table, and the place in it of each row of the whole one."""
        super().build(input_shape)
        self.places = self.add_weight(
            shape=(self.rows,), dtype="int32", initializer="zeros", trainable=False, name="places"
        )

    def call(self, inputs: Any) -> Any:
        """Return the rows of some numbers."""
        return super().call(keras.ops.take(self.places, keras.ops.cast(inputs, "int32"), axis=0))

    def get_config(self) -> dict[str, Any]:
        """Return what makes the layer again."""
        return {**super().get_config(), "rows": self.rows}


def lookups(model: Any, batches: Iterable[Batch]) -> dict[str, Array]:
    """Return how often each row of each embedding table is looked up, by the layer's name."""
    counted = copy_model(model)
    tables = [layer for layer in layers_of(counted) if type(layer) is keras.layers.Embedding]
    counts = {layer.name: np.zeros(layer.input_dim, np.int64) for layer in tables}
    if not counts:
        return {}

    def counting(layer: Any) -> Any:
        look_up = layer.call

        def call(inputs: Any) -> Any:
            counts[layer.name] += np.bincount(to_numpy(inputs).astype(np.int64).reshape(-1), minlength=layer.input_dim)
            return look_up(inputs)

        return call

    for layer in tables:
        vars(layer)["call"] = counting(layer)
    for batch in batches:
        arguments = model_arguments(counted, batch.inputs)
        counted(arguments, training=False)
    for layer in tables:
        if layer.mask_zero:
            counts[layer.name][0] = OWN  # the row of padding stays its own
    return counts


def with_shared_rows(model: Any, kept: Mapping[str, Array], batch: Batch) -> tuple[Any, dict[str, str]]:
    """Return a copy whose tables hold the rows that stay and one for the rest, and why a table was left whole.

    Args:
        model: It is not changed.
        kept: The rows that stay, by the layer's name.
        batch: Unused: in a functional or Sequential model a layer's weights are read by the layer alone.
    """
    del batch
    if not is_graph(model):
        return model, dict.fromkeys(kept, f"{type(model).__name__} is a subclassed model")

    def smaller(layer: Any) -> Any:
        if layer.name not in kept or type(layer) is not keras.layers.Embedding:
            return twin(layer)
        options = layer.get_config()
        rows = options.pop("input_dim")
        for gone in ("input_length", "quantization_config"):
            options.pop(gone, None)
        return SharedRows(**options, input_dim=len(kept[layer.name]) + 1, rows=rows)

    with keras.saving.custom_object_scope(objects_by_name(model)):
        made = keras.models.clone_model(uncompiled(model), clone_function=smaller, recursive=True)
    for layer, other in zip(layers_of(model), layers_of(made), strict=True):
        other.trainable = layer.trainable
        if isinstance(other, SharedRows):
            rows = kept[layer.name]
            other.embeddings.assign(smaller_table(layer.embeddings.numpy(), rows))
            other.places.assign(places(layer.input_dim, rows))
        else:
            for source, target in zip(own_variables(layer), own_variables(other), strict=True):
                target.assign(source)
    follow_weights(made)
    return made, {}
