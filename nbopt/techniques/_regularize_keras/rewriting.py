"""A Keras graph again, with layers added, changed or left out, and the weights of the old one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras

from nbopt.errors import ModelError
from nbopt.frameworks._keras_copy import follow_weights, twin, uncompiled
from nbopt.frameworks._keras_dialect import is_graph, layers_of, objects_by_name


@dataclass
class Changes:
    """Say what changes in a graph; layers are known by their `id`.

    Args:
        before: New layers that come before one.
        after: New layers that come after one.
        config: Entries of a layer's configuration that change.
        dropped: Layers that go; each gives what it hears.
    """

    before: dict[int, list[Any]] = field(default_factory=dict)
    after: dict[int, list[Any]] = field(default_factory=dict)
    config: dict[int, dict[str, Any]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)


@dataclass
class Rewriting:
    """Make a graph again, nested ones with it.

    Args:
        changes: What changes.
    """

    changes: Changes
    twins: dict[int, Any] = field(default_factory=dict)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def again(self, model: Any) -> Any:
        """Return the changed model with the weights of the old one.

        Raises:
            ModelError: It is subclassed, or its layers can't be made again.
        """
        if not is_graph(model):
            raise ModelError(
                "a functional or Sequential model, whose layers are known",
                f"the subclassed model {type(model).__name__}",
                "write it as keras.Model(inputs, outputs), or put the layers in yourself",
            )
        try:
            with keras.saving.custom_object_scope(objects_by_name(model)):
                result = self._model(model)
        except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                "layers that can be made again from their get_config()", f"{type(error).__name__}: {reason}"
            ) from error
        for old, new in self.pairs:
            alike = len(old.variables) == len(new.variables)
            # A layer with a new rate has a generator more, and one with a new bias has that after its kernel.
            for source, target in zip(*((x.variables if alike else x.weights) for x in (old, new)), strict=False):
                target.assign(source.value)
        for old, new in self.pairs:
            for source, target in zip((old, *layers_of(old)), (new, *layers_of(new)), strict=False):
                target.trainable = source.trainable
        follow_weights(result)
        return result

    def _model(self, model: Any) -> Any:
        if id(model) not in self.twins:
            self.twins[id(model)] = (
                self._sequential(model) if isinstance(model, keras.Sequential) else self._graph(model)
            )
        return self.twins[id(model)]

    def _layer(self, layer: Any) -> Any:
        if id(layer) in self.twins:
            return self.twins[id(layer)]
        if isinstance(layer, keras.Model) and is_graph(layer):
            return self._model(layer)
        changed = self.changes.config.get(id(layer))
        made = twin(layer) if changed is None else type(layer).from_config({**layer.get_config(), **changed})
        self.twins[id(layer)] = made
        if isinstance(layer, keras.Layer):
            self.pairs.append((layer, made))
        return made

    def _sequential(self, model: Any) -> Any:
        layers: list[Any] = []
        for layer in model.layers:
            layers += self.changes.before.get(id(layer), ())
            if id(layer) not in self.changes.dropped:
                layers.append(self._layer(layer))
            layers += self.changes.after.get(id(layer), ())
        entry = model._functional.inputs[0] if model._functional is not None else None
        if entry is None:
            return keras.Sequential(layers, name=model.name)
        inputs = keras.Input(batch_shape=entry.shape, dtype=entry.dtype, name=entry.name)
        return keras.Sequential([inputs, *layers], name=model.name)

    def _graph(self, model: Any) -> Any:
        # clone_model gives each new layer; which old one it is of tells what stands before and after it.
        olds: dict[int, Any] = {}

        def make(layer: Any) -> Any:
            made = self._layer(layer) if id(layer) not in self.changes.dropped else keras.layers.Identity()
            olds[id(made)] = layer
            return made

        def call(made: Any, *args: Any, **kwargs: Any) -> Any:
            layer = olds[id(made)]
            if args:
                first = args[0]
                for extra in self.changes.before.get(id(layer), ()):
                    first = extra(first)
                args = (first, *args[1:])
            output = args[0] if id(layer) in self.changes.dropped else made(*args, **kwargs)
            for extra in self.changes.after.get(id(layer), ()):
                output = extra(output)
            return output

        return keras.models.clone_model(uncompiled(model), clone_function=make, call_function=call)
