"""What a Keras model's output means, and which loss trains it."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from nbopt.errors import ModelError
from nbopt.frameworks import OutputKind
from nbopt.frameworks._keras_dialect import (
    inputs_of,
    is_compiled,
    is_legacy,
    is_own,
    keras_of,
    kinds,
    source_of,
    symbolic,
)
from nbopt.frameworks._losses import ALREADY, INFERRED, OF_VALUES, Loss, TrainingLoss, unknown
from nbopt.frameworks._primary import primary_output

TINY = 1e-7  # probabilities are clipped to [TINY, 1 - TINY] before their logarithm
IGNORED = -100  # label that padding gives in sequence models
_REGRESSION = {
    "meansquarederror", "mse", "meanabsoluteerror", "mae", "huber", "logcosh", "meanabsolutepercentageerror", "mape",
    "meansquaredlogarithmicerror", "msle", "poisson",
}  # fmt: skip


def declared_output(model: Any, loss: Any) -> OutputKind | None:
    """Return what the last activation, or else the loss, says of the primary output; None where neither does.

    An activation is a fact and a loss an intention: `from_logits=True` over a softmax head is a common slip,
    and its outputs are probabilities all the same. A linear head under a loss of probabilities tells nothing
    certain, so the outputs themselves must.
    """
    loss = _for_primary(loss if loss is not None else _compiled_loss(model), model)
    name = _plain(loss)
    activation = _last_activation(model)
    width = _width(model)
    if activation == "softmax":
        return "probabilities"
    if activation == "log_softmax":
        return "log_probabilities"
    if activation == "sigmoid":
        if "categorical" in name:
            return "probabilities"
        if name in _REGRESSION:
            return "regression"
        return None if width is None else "binary_probabilities" if width == 1 else "multilabel_probabilities"
    if name in _REGRESSION:
        return "regression"
    logits = _from_logits(loss)
    if "categorical" in name and "crossentropy" in name:
        return "logits" if logits else None if activation == "linear" else "probabilities"
    if "binary" in name and "crossentropy" in name and width is not None:
        if logits:
            return "binary_logits" if width == 1 else "multilabel_logits"
        if activation != "linear":
            return "binary_probabilities" if width == 1 else "multilabel_probabilities"
    return None


def loss_for(model: Any, loss: Any, kind: OutputKind) -> tuple[TrainingLoss, str]:
    """Return `loss(output, target, weight) -> scalar` and its plain name.

    Args:
        model: The model, whose compiled loss is taken where `loss` is None.
        loss: The user's loss: a Keras name, a `keras.losses.Loss`, or a function `f(y_true, y_pred)`.
        kind: What the output means, from which the loss is inferred where there is none.

    Raises:
        ModelError: The loss is of a form that Keras does not know.
    """
    whose = "yours"
    if loss is None:
        loss, whose = _compiled_loss(model), "as compiled"
    loss = _for_primary(loss, model)
    if loss is not None:
        return _users(_by_kind(loss, kind, model), keras_of(model)), f"{_shown(loss)} ({whose})"
    losses: dict[str, Callable[..., Any]] = {
        "logits": _cross_entropy,
        "probabilities": _nll_of_probabilities,
        "log_probabilities": _nll,
        "binary_logits": _binary_logits,
        "multilabel_logits": _binary_logits,
        "binary_probabilities": _binary,
        "multilabel_probabilities": _binary,
        "regression": _squared,
    }
    inferred, words = losses[kind], INFERRED[kind]
    if kind == "regression":
        return TrainingLoss(inferred, refusal=OF_VALUES), words
    return TrainingLoss(inferred, lambda share: functools.partial(inferred, smoothing=share)), words


def _compiled_loss(model: Any) -> Any:
    return getattr(model, "loss", None) if is_compiled(model) else None


def _for_primary(loss: Any, model: Any) -> Any:
    """Return the loss of the output that quality is judged on, of a loss for each output."""
    if isinstance(loss, dict):
        names = list(loss)
        return loss.get("logits") or loss.get("output") or loss[_primary_name(model, names)]
    if isinstance(loss, (list, tuple)):
        return loss[0] if loss else None
    return loss


def _primary_name(model: Any, names: list[str]) -> str:
    produced = getattr(model, "output_names", None) or names
    return next((name for name in produced if name in names), names[0])


def _by_kind(loss: Any, kind: OutputKind, model: Any) -> Any:
    """Return the loss that Keras 3 takes for "crossentropy" of such an output; any other loss as it is."""
    if is_legacy(model) or str(loss).lower() not in ("crossentropy", "ce"):
        return loss
    return "binary_crossentropy" if kind.startswith("binary") else "categorical_crossentropy"


def _plain(loss: Any) -> str:
    """Return the loss's name in lower case with no underscores: "sparsecategoricalcrossentropy"."""
    if isinstance(loss, functools.partial):
        loss = loss.func
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return str(name).replace("_", "").lower() if loss is not None else ""


def _shown(loss: Any) -> str:
    return loss if isinstance(loss, str) else str(getattr(loss, "__name__", type(loss).__name__))


def _from_logits(loss: Any) -> bool:
    if isinstance(loss, functools.partial):
        return bool(loss.keywords.get("from_logits", False))
    return bool(getattr(loss, "from_logits", False))


def _outputs(model: Any) -> Any:
    """Return the symbolic primary output of a functional or built Sequential model, None of others."""
    structure = symbolic(model, "_outputs_struct")
    return None if structure is None else primary_output(structure)


def _width(model: Any) -> int | None:
    output = _outputs(model)
    if output is None:
        return None
    return 1 if len(output.shape) == 1 else output.shape[-1]


def _last_activation(model: Any) -> str:
    """Return "softmax", "sigmoid", "linear" and so on for the operation that makes the output, "" if unknown."""
    tensor = _outputs(model)
    while tensor is not None:
        operation, node = source_of(tensor)
        if isinstance(operation, kinds("Model")):
            tensor = _outputs(operation)
            continue
        kind = type(operation).__name__.lower()
        if kind in ("softmax", "sigmoid", "logsoftmax"):
            return "log_softmax" if kind == "logsoftmax" else kind
        activation = getattr(operation, "activation", None)
        name = str(getattr(activation, "__name__", ""))
        passes_on = kind in ("reshape", "flatten", "squeeze", "cast", "identity", "dropout")
        if passes_on or (kind == "activation" and name == "linear"):
            inputs = inputs_of(node)
            tensor = inputs[0] if len(inputs) == 1 else None
            continue
        return name
    return ""


def _mean(rows: Any, weight: Any) -> Any:
    rows = tf.convert_to_tensor(rows)
    if weight is None:
        return tf.reduce_mean(rows)
    rows = tf.reduce_mean(tf.reshape(rows, [tf.shape(rows)[0], -1]), -1)
    weight = tf.cast(tf.reshape(weight, [-1]), rows.dtype)
    return tf.reduce_sum(rows * weight) / tf.maximum(tf.reduce_sum(weight), TINY)


def _is_dense(output: Any, target: Any) -> bool:
    """Tell labels of one column a class from labels that are class numbers."""
    return len(target.shape) == len(output.shape) and target.shape[-1] == output.shape[-1] and output.shape[-1] != 1


def _class_rows(log_probabilities: Any, target: Any, weight: Any, smoothing: float) -> Any:
    if smoothing:
        # Of a label that gives a share to all classes alike, whether it comes as a number or as a row of columns.
        evenly = tf.reduce_mean(log_probabilities, -1, keepdims=True)
        log_probabilities = (1 - smoothing) * log_probabilities + smoothing * evenly
    if _is_dense(log_probabilities, target):
        return _mean(-tf.reduce_sum(tf.cast(target, log_probabilities.dtype) * log_probabilities, -1), weight)
    target = tf.cast(tf.reshape(target, tf.shape(log_probabilities)[:-1]), tf.int32)
    counted = target != IGNORED
    rows = -tf.gather(log_probabilities, tf.where(counted, target, 0), batch_dims=target.shape.rank, axis=-1)
    rows = tf.where(counted, rows, 0.0)
    if weight is not None:
        return _mean(rows, weight)
    return tf.reduce_sum(rows) / tf.maximum(tf.reduce_sum(tf.cast(counted, rows.dtype)), 1.0)


def _cross_entropy(output: Any, target: Any, weight: Any, smoothing: float = 0.0) -> Any:
    return _class_rows(tf.nn.log_softmax(tf.cast(output, tf.float32)), target, weight, smoothing)


def _nll(output: Any, target: Any, weight: Any, smoothing: float = 0.0) -> Any:
    return _class_rows(tf.cast(output, tf.float32), target, weight, smoothing)


def _nll_of_probabilities(output: Any, target: Any, weight: Any, smoothing: float = 0.0) -> Any:
    return _class_rows(tf.math.log(tf.maximum(tf.cast(output, tf.float32), TINY)), target, weight, smoothing)


def _alike(output: Any, target: Any, smoothing: float = 0.0) -> tuple[Any, Any]:
    output = tf.cast(output, tf.float32)
    target = tf.cast(tf.reshape(target, tf.shape(output)), tf.float32)
    return output, target * (1 - smoothing) + smoothing / 2 if smoothing else target


def _binary_logits(output: Any, target: Any, weight: Any, smoothing: float = 0.0) -> Any:
    output, target = _alike(output, target, smoothing)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=output), weight)


def _binary(output: Any, target: Any, weight: Any, smoothing: float = 0.0) -> Any:
    output, target = _alike(output, target, smoothing)
    p = tf.clip_by_value(output, TINY, 1 - TINY)
    return _mean(-(target * tf.math.log(p) + (1 - target) * tf.math.log(1 - p)), weight)


def _squared(output: Any, target: Any, weight: Any) -> Any:
    output, target = _alike(output, target)
    return _mean((output - target) ** 2, weight)


def _users(loss: Any, keras: Any) -> TrainingLoss:
    """Adapt a user's loss, and smooth its labels where it is one of Keras' own; `keras` is what the model is of."""
    name = _plain(loss)
    try:
        function = keras.losses.get(loss) if isinstance(loss, (str, dict)) else loss
    except ValueError as error:
        raise ModelError(
            "a loss that Keras knows by name, a keras.losses.Loss, or a function f(y_true, y_pred)", repr(loss)
        ) from error
    if not callable(function):
        raise ModelError("a loss as a Keras name, a keras.losses.Loss, or a function f(y_true, y_pred)", repr(loss))
    value = _suited(function, name, keras)
    if name in _REGRESSION:
        return TrainingLoss(value, refusal=OF_VALUES)
    if _share_of(function):
        return TrainingLoss(value, refusal=ALREADY)
    if _with_smoothing(function, name, 0.1) is None:
        return TrainingLoss(value, refusal=unknown(_shown(loss)))
    return TrainingLoss(
        value, lambda share: _suited(_with_smoothing(function, name, share), name.replace("sparsecat", "cat"), keras)
    )


def _share_of(function: Any) -> float:
    """Return the share by which a loss of Keras smooths labels already."""
    if isinstance(function, functools.partial):
        return float(function.keywords.get("label_smoothing", 0.0))
    return float(getattr(function, "label_smoothing", 0.0) or 0.0)


def _with_smoothing(function: Any, name: str, share: float) -> Any:
    """Return Keras' own loss with smoothed labels, None of a loss that has no such thing."""
    if isinstance(function, kinds("losses.Loss")):
        keras = keras_of(function)
        config = function.get_config()
        if type(function) is keras.losses.SparseCategoricalCrossentropy and config.get("ignore_class") is None:
            # Class numbers can't be smoothed; the same loss of one-hot labels can.
            return keras.losses.CategoricalCrossentropy(
                from_logits=config["from_logits"],
                label_smoothing=share,
                axis=config.get("axis", -1),
                reduction=config.get("reduction", "sum_over_batch_size"),
            )
        own = is_own(type(function).__module__)
        return (
            type(function).from_config({**config, "label_smoothing": share})
            if own and "label_smoothing" in config
            else None
        )
    inner = function.func if isinstance(function, functools.partial) else function
    keywords = function.keywords if isinstance(function, functools.partial) else {}
    if name == "sparsecategoricalcrossentropy" and keywords.get("ignore_class") is None:
        module = str(getattr(inner, "__module__", "keras")).partition(".")[0]
        losses = importlib.import_module(module if is_own(module) else "keras").losses
        return functools.partial(
            losses.categorical_crossentropy,
            from_logits=keywords.get("from_logits", False),
            label_smoothing=share,
        )
    own = is_own(getattr(inner, "__module__", ""))
    if own and "label_smoothing" in inspect.signature(inner).parameters:
        return functools.partial(inner, **keywords, label_smoothing=share)
    return None


def _suited(function: Any, name: str, keras: Any) -> Loss:
    """Return a loss that takes class numbers and one-hot labels alike, whichever it was made for.

    A function becomes what `compile` makes of it, so that `fit` and a training here compute the same: labels come as
    floats and in the output's rank, what an output masks is left out, weights of rows count.
    """
    made = function if isinstance(function, kinds("losses.Loss")) else keras.src.losses.LossFunctionWrapper(function)

    def suited(output: Any, target: Any) -> Any:
        if "sparsecategorical" in name:
            return tf.argmax(target, -1) if _is_dense(output, target) else target
        if "categorical" in name and not _is_dense(output, target):
            numbers = tf.cast(tf.reshape(target, tf.shape(output)[:-1]), tf.int32)
            return tf.one_hot(numbers, output.shape[-1], dtype=output.dtype)
        if len(target.shape) + 1 == len(output.shape) and output.shape[-1] == 1:
            return tf.expand_dims(target, -1)
        return target

    def value(output: Any, target: Any, weight: Any) -> Any:
        # The mean, of a Loss that was told to leave the reduction to others.
        return tf.reduce_mean(made(suited(output, target), output, sample_weight=weight))

    return value
