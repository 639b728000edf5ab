"""Carry out a plan's precision in Keras: mixed policies while a step is traced, and float16's scaled loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from nbopt.errors import ModelError
from nbopt.frameworks._keras_dialect import is_graph, layers_of, symbolic
from nbopt.training import FRUITLESS, Mixed, TrainingPlan, fruitless


def native_halves(model: Any) -> tuple[str, ...]:
    """Return the half precisions that TensorFlow can train a model in where it lies; of a CPU what it has kernels for.

    Raises:
        ModelError: Layers are in half precision already, or quantized.
    """
    layers = (model, *layers_of(model))
    other = {layer.dtype_policy.name for layer in layers} - {"float32"}
    other |= {str(variable.dtype) for variable in model.trainable_variables} - {"float32"}
    if other:
        raise ModelError(
            "a model whose layers are float32, which mixed precision keeps for weights",
            f"layers in {', '.join(sorted(other))}",
            "build it with dtype_policy float32 and copy the weights: new.set_weights(old.get_weights())",
        )
    places = {str(variable.value.device).rpartition("device:")[2][:3] for variable in model.weights}
    if "GPU" not in places:
        return ("bfloat16",)
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    # Cards before Ampere (8.0) compute bfloat16 by way of float32.
    return ("bfloat16", "float16") if details.get("compute_capability", (0, 0)) >= (8, 0) else ("float16",)


@contextmanager
def policies(model: Any, precision: str) -> Iterator[None]:
    """Let layers compute in half precision for what is traced inside; the model is float32 again afterwards.

    `keras.config.set_dtype_policy` does not reach layers that exist. A traced function keeps what it was traced
    with, so that the policy need not stay on the layers: validation, copies and the export see float32 throughout.
    """
    policy = keras.DTypePolicy(f"mixed_{precision}")
    kept = kept_in_float32(model)
    before = [
        (layer, layer.dtype_policy)
        for layer in (model, *layers_of(model))
        # A functional model is no layer that computes; with a policy it would turn its inputs into halves before
        # the layers that are to see them whole.
        if layer.dtype_policy.name == "float32" and not is_graph_of_layers(layer) and id(layer) not in kept
    ]
    for layer, _ in before:
        layer.dtype_policy = policy
    try:
        yield
    finally:
        for layer, own in before:
            layer.dtype_policy = own


def is_graph_of_layers(layer: Any) -> bool:
    """Tell whether a layer is a functional or Sequential model without a `call` of its own."""
    return isinstance(layer, keras.Model) and is_graph(layer)


def kept_in_float32(model: Any) -> set[int]:
    """Return the ids of layers that stay float32: those that bring inputs to scale, and the one that makes the output.

    Half precision has three digits (bfloat16) or ends at 65,504 (float16): too little for raw columns before they
    are scaled, and a softmax in it rounds what the loss takes the logarithm of.
    """
    kept = {id(layer) for layer in layers_of(model) if "layers.preprocessing" in type(layer).__module__}
    inputs = symbolic(model, "_inputs_struct")
    if inputs is None:
        return kept
    given = {id(tensor) for tensor in keras.tree.flatten(inputs)}
    for layer in layers_of(model):
        first = any(id(tensor) in given for node in layer._inbound_nodes for tensor in node.input_tensors)
        if first and "normalization" in type(layer).__name__.lower():
            kept.add(id(layer))
    for tensor in keras.tree.flatten(symbolic(model, "_outputs_struct")):
        operation = tensor._keras_history.operation
        while is_graph_of_layers(operation):
            operation = keras.tree.flatten(symbolic(operation, "_outputs_struct"))[0]._keras_history.operation
        kept.add(id(operation))
    return kept


class Precision:
    """Hold the precision of one training: how it is traced, how it steps, and what it counted.

    With "float32" it steps as if it were not there.

    Args:
        plan: The training.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.half = plan.precision != "float32"
        self.steps = 0
        self.scale: Any = None
        if self.half:
            self.skipped, self.nonfinite, self.in_a_row = (tf.Variable(0, dtype=tf.int64) for _ in range(3))

    @contextmanager
    def traced(self, model: Any) -> Iterator[None]:
        """Let the model compute in this precision for what is traced inside."""
        if not self.half:
            yield
            return
        with policies(model, self.plan.precision):
            yield

    def output(self, output: Any) -> Any:
        """Return an output; a half one as float32, in which losses are summed without loss of digits."""
        if not self.half or output.dtype not in (tf.bfloat16, tf.float16):
            return output
        whole = tf.cast(output, tf.float32)
        if getattr(output, "_keras_mask", None) is not None:
            whole._keras_mask = output._keras_mask  # by which Keras's losses leave padding out
        return whole

    def scaled(self, optimizer: Any, loss: Any) -> Any:
        """Return a loss as gradients are to be taken of: scaled where the optimizer scales."""
        return optimizer.scale_loss(loss) if hasattr(optimizer, "scale_loss") else loss

    def apply(self, optimizer: Any, pairs: list[tuple[Any, Any]]) -> None:
        """Change the weights, where all gradients are finite."""
        if not self.half:
            optimizer.apply_gradients(pairs)
            return
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g, _ in pairs]
        flags = [tf.reduce_all(tf.math.is_finite(value)) for value in values]
        bad = tf.reduce_sum(tf.cast(tf.logical_not(tf.stack(flags)), tf.int64))
        one = tf.cast(bad > 0, tf.int64)
        self.nonfinite.assign_add(bad)
        self.skipped.assign_add(one)
        self.in_a_row.assign((self.in_a_row + one) * one)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            self.scale = optimizer.dynamic_scale
            optimizer.apply_gradients(pairs)  # skips by itself, and halves its scale
            return

        def change() -> Any:
            optimizer.apply_gradients(pairs)
            return tf.constant(True)

        tf.cond(bad == 0, change, lambda: tf.constant(False))

    def stepped(self) -> None:
        """Count a step.

        Raises:
            TrainingError: The gradients of too many steps in a row were not finite.
        """
        self.steps += 1
        if self.half and int(self.in_a_row) >= FRUITLESS:
            raise fruitless(self.plan)

    def counts(self) -> Mixed | None:
        """Return what was counted, None in float32."""
        if not self.half:
            return None
        scale = None if self.scale is None else float(self.scale)
        return Mixed(self.plan.precision, self.steps, int(self.skipped), int(self.nonfinite), scale)
