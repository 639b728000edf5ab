"""Independent copies of Keras models, custom and notebook-defined classes included."""

from __future__ import annotations

import io
import pickle
import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nbopt.errors import ModelError
from nbopt.frameworks._keras_dialect import is_graph, is_legacy, kinds, layers_of, objects_by_name, raw, symbolic

# What `compile` leaves on a model. A copy starts uncompiled: an optimizer's slots belong to the original's
# weights, and would be saved (twice the model's size) into the file that is measured.
_COMPILED_STATE = {
    "compiled": False,
    "loss": None,
    "optimizer": None,
    "_compile_loss": None,
    "_compile_metrics": None,
    "_loss_tracker": None,
    "train_function": None,
    "test_function": None,
    "predict_function": None,
    "stop_training": False,
}
_COMPILED_NAMES = {*_COMPILED_STATE, "_compiled_trainable_state"}
# Closures over the original object that `keras.layers.Layer.__new__` makes afresh for each instance.
_PER_INSTANCE = ("build", "quantize")
_tracking = keras.src.utils.tracking
_TRACKED = (_tracking.TrackedList, _tracking.TrackedDict, _tracking.TrackedSet)


def copy_model(model: Any) -> Any:
    """Return an uncompiled copy with own variables: weights, BatchNorm statistics, seed states, `trainable`.

    Functional and Sequential models are rebuilt from their configuration; of subclassed models the object
    graph itself is copied.

    Raises:
        ModelError: The model holds something that can't be copied, or the copy is not equal.
    """
    if is_legacy(model):
        from nbopt.frameworks import _tf_keras_copy

        copied = _tf_keras_copy.rebuilt(model)
    else:
        copied = _rebuilt(model) if is_graph(model) else _copied_graph(model)
    if copied is None:
        config = "let get_config() of your own layers return every argument of the constructor"
        raise not_copied(model, "its layers can't be made again from their get_config()", config)
    if [v.shape for v in copied.variables] != [v.shape for v in model.variables]:
        raise not_copied(model, "the copy has other variables than the original")
    for original, own in zip(layers_of(model), layers_of(copied), strict=True):
        own.trainable = original.trainable
        if replaces_call(vars(original).get("call")):
            vars(own)["call"] = vars(original)["call"].moved_to(own)
    for source, target in zip(model.variables, copied.variables, strict=True):
        target.assign(raw(source))
    follow_weights(copied)
    if model.run_eagerly:  # Python in its `call` may need that
        copied.run_eagerly = True
    return copied


def replaces_call(value: Any) -> bool:
    """Tell whether a layer's attribute is a `call` that a technique put in place of its own, and that can move.

    No configuration has it, and the method that it goes on to is bound to its layer.
    """
    return hasattr(value, "moved_to")


def follow_weights(model: Any) -> None:
    """Let layers that compute with something made from their weights make it anew, once weights were assigned.

    An adapted Normalization computes with constants, which Keras 3.15 makes from its weights in `adapt` and in
    `load_own_variables` only: `set_weights` on a clone leaves it with mean 0 and variance 1.
    """
    for layer in layers_of(model):
        if isinstance(layer, kinds("layers.Normalization")):
            layer.finalize_state()


def probe(model: Any) -> tuple[Any, ...] | dict[str, Any] | None:
    """Return two rows that the model should take, from its symbolic inputs; None where no shape is known."""
    structure = symbolic(model, "_inputs_struct")
    if structure is None or any(None in tuple(tensor.shape)[1:] for tensor in tf.nest.flatten(structure)):
        return None  # a length made up here may be one that the model can't take
    rng = np.random.default_rng(0)

    def rows(tensor: Any) -> Any:
        shape = [2, *tensor.shape[1:]]
        dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
        if not dtype.startswith("float"):
            return np.zeros(shape, dtype)  # a class number or token that every table has
        return rng.random(shape).astype(dtype)  # which is that token too, where a table is asked by floats

    values = tf.nest.map_structure(rows, structure)
    return values if isinstance(values, dict) else tuple(tf.nest.flatten(values))


def _rebuilt(model: Any) -> Any:
    try:
        with keras.saving.custom_object_scope(objects_by_name(model)):
            copied = keras.models.clone_model(uncompiled(model), clone_function=twin, recursive=True)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return None
    same = [v.shape for v in copied.variables] == [v.shape for v in model.variables]
    return copied if same and len(layers_of(copied)) == len(layers_of(model)) else None


def uncompiled(model: Any) -> Any:
    """Return a second handle on the same layers that says it was not compiled; the model itself stays as it is.

    `clone_model` compiles its result as the original was, and Keras finds no loss again that a notebook defined.
    """
    handle = object.__new__(type(model))
    vars(handle).update({**vars(model), "compiled": False})
    return handle


def twin(layer: Any) -> Any:
    """Return a layer of the same configuration."""
    if type(layer) is not keras.layers.Lambda:
        try:
            made = type(layer).from_config(layer.get_config())
        except (TypeError, ValueError, NotImplementedError, AttributeError):
            # A user's own layer whose get_config does not give back what its constructor was given.
            return _copied_graph(layer)
        return _with_vocabulary(made, layer)
    # A Lambda's configuration holds its function as bytecode, which Keras refuses to read back; the function
    # itself is at hand.
    return keras.layers.Lambda(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def _with_vocabulary(made: Any, layer: Any) -> Any:
    """Give a layer that looks up by a table the words or numbers that another learned in `adapt`.

    A configuration holds those that the constructor was given, and of the others only that there are some.
    """
    if isinstance(layer, kinds("layers.IntegerLookup", "layers.StringLookup")) and layer.input_vocabulary is None:
        words = layer.get_vocabulary(include_special_tokens=False)
        weights = layer.idf_weights.numpy()[-len(words) :] if layer.output_mode == "tf_idf" else None
        made.set_vocabulary(words, weights)
    return made


def not_copied(
    model: Any, reason: str, do: str = "keep files, generators and threads out of the model's attributes"
) -> ModelError:
    expected = "a model that can be copied, so that yours stays as it is"
    return ModelError(expected, f"{type(model).__name__}: {reason}", do)


class _GraphPickler(pickle.Pickler):
    """Pickle a model in memory only. Classes, functions and modules go by reference, so that the copy is of
    the same classes as the original, wherever they were defined.

    `copy.deepcopy` can't be used: Keras routes it through a .keras file, which needs every class registered
    and every constructor to take what `get_config` gives.
    """  # noqa: D205

    def __init__(self, file: io.BytesIO, references: list[Any], root: Any) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.references = references
        self.root = root
        self.nested: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> int | None:
        if isinstance(obj, keras.Model) and obj is not self.root and is_graph(obj) and obj.built:
            # A functional model knows its nodes by id(): it must be rebuilt, once for all who refer to it.
            if id(obj) not in self.nested:
                self.references.append(copy_model(obj))
                self.nested[id(obj)] = len(self.references) - 1
            return self.nested[id(obj)]
        by_reference = (
            type,
            types.FunctionType,
            types.BuiltinFunctionType,
            types.ModuleType,
            np.ufunc,
            tf.DType,
            tf.TensorSpec,
            keras.DTypePolicy,
        )
        if isinstance(obj, by_reference):
            self.references.append(obj)
            return len(self.references) - 1
        return None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, keras.Layer):
            left_out = {*_PER_INSTANCE, "_compiled_trainable_state"}
            if replaces_call(vars(obj).get("call")):
                left_out.add("call")
            state = {name: value for name, value in vars(obj).items() if name not in left_out}
            # Where it stands in a functional model, which is made again around the copy.
            state |= {name: [] for name in ("_inbound_nodes", "_outbound_nodes") if name in state}
            if isinstance(obj, keras.Model):
                state |= {name: value for name, value in _COMPILED_STATE.items() if name in state}
            return _new_layer, (type(obj),), state, None, None, _set_state
        if isinstance(obj, _TRACKED):
            items = list(obj.items() if isinstance(obj, dict) else obj)
            return type(obj), (), (obj.tracker, [i for i in items if not _is_compiled(i)]), None, None, _fill
        if isinstance(obj, keras.Optimizer):
            return type(None), ()
        if isinstance(obj, tf.Variable):
            name = obj.name.partition(":")[0]
            return _new_variable, (obj.numpy(), obj.dtype, obj.trainable, name, obj.shape.as_list())
        if tf.is_tensor(obj) and not isinstance(obj, keras.Variable) and hasattr(obj, "numpy"):
            return tf.constant, (obj.numpy(), obj.dtype)
        return NotImplemented


class _GraphUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, references: list[Any]) -> None:
        super().__init__(file)
        self.references = references

    def persistent_load(self, pid: int) -> Any:
        return self.references[pid]


def _is_compiled(item: Any) -> bool:
    """Tell a checkpoint reference, (name, object), to what `compile` left on a model."""
    if type(item).__name__ == "TrackableReference":
        return item.name in _COMPILED_NAMES
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) and item[0] in _COMPILED_NAMES


def _new_layer(cls: Any) -> Any:
    return cls.__new__(cls)


def _set_state(layer: Any, state: dict[str, Any]) -> None:
    # Past Layer.__setattr__: it would track every attribute a second time.
    vars(layer).update(state)


def _fill(collection: Any, state: tuple[Any, list[Any]]) -> None:
    # The collections' own methods ask a tracker that does not exist yet while the copy is being put together.
    base: Any = next(cls for cls in (list, dict, set) if isinstance(collection, cls))
    (base.extend if base is list else base.update)(collection, state[1])
    collection.tracker = state[0]


def _new_variable(value: Any, dtype: Any, trainable: bool, name: str, shape: list[int | None]) -> Any:
    return tf.Variable(value, dtype=dtype, trainable=trainable, name=name, shape=shape)


def _copied_graph(model: Any) -> Any:
    buffer = io.BytesIO()
    references: list[Any] = []
    try:
        _GraphPickler(buffer, references, model).dump(model)
        buffer.seek(0)
        copied = _GraphUnpickler(buffer, references).load()
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError) as error:
        raise not_copied(model, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    for layer in copied._flatten_layers(include_self=True, recursive=True):
        tracker = layer._tracker
        # The tracker knows what it stores by id().
        tracker.stored_ids = {name: {id(item) for item in store} for name, (_, store) in tracker.config.items()}
    return copied
