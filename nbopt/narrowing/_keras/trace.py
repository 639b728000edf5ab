"""Follow channels through a functional Keras graph, layer by layer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from nbopt.frameworks._keras_dialect import is_graph
from nbopt.narrowing._keras.channels import Channels
from nbopt.narrowing._keras.kinds import ALONG, ELEMENTWISE, GATES, JOINING, PASSING, PASSING_OPS, spares_channels
from nbopt.narrowing.widths import Cut, Width

Array = np.ndarray[Any, Any]
_L = keras.layers


@dataclass(frozen=True)
class Slice:
    """Say which channel each place of a weight's axis belongs to.

    Args:
        axis: The axis.
        ids: A channel number for each place.
        takes_in: The axis is multiplied with the channel (rows of a kernel), and does not make it.
    """

    axis: int
    ids: Array
    takes_in: bool


class Trace:
    """Know every channel of a model, and every weight that holds it."""

    def __init__(self, model: Any) -> None:
        self.channels = Channels()
        self.slices: dict[int, list[Slice]] = {}
        self._made: dict[int, Array] = {}
        self._seen: dict[int, tuple[Array, Array]] = {}
        self._reshaped: dict[int, Array] = {}
        self._entries: dict[int, list[Array | None]] = {}
        self._heads: dict[int, tuple[Array, Array, Array, Array, Array]] = {}
        self._whole: dict[str, str] = {}
        functional = _functional(model)
        entry = [self._fresh(tensor, frozen=True) for tensor in functional._inputs]
        for ids in self._walk(functional, entry):
            if ids is not None:
                self.channels.freeze(ids)

    def notes(self) -> list[str]:
        """Return which kinds of layers made their surroundings keep their width."""
        if not self._whole:
            return []
        kinds = ", ".join(sorted(set(self._whole.values())))
        return [f"layers next to {kinds} keep their width: channels can't be followed through them"]

    def resized(self, layer: Any, keep: Array) -> dict[str, Any]:
        """Return what changes in a layer's configuration."""
        made = self._made.get(id(layer))
        if id(layer) in self._heads:
            return {"num_heads": int(keep[self._heads[id(layer)][3]].sum())}
        if made is not None and isinstance(layer, _L.Bidirectional):
            count, config = int(keep[made].sum()), layer.get_config()
            changed = {}
            for name in ("layer", "backward_layer"):
                if config.get(name):
                    # Without build_config, which would build it for as many inputs as there were.
                    inner = {key: value for key, value in config[name].items() if key != "build_config"}
                    changed[name] = {**inner, "config": {**inner["config"], "units": count}}
            return changed
        if id(layer) in self._reshaped:
            target = tuple(layer.target_shape)
            return {"target_shape": (*target[:-1], int(keep[self._reshaped[id(layer)]].sum()))}
        if made is None or keep[made].all():
            return {}
        return {"units" if hasattr(layer, "units") else "filters": int(keep[made].sum())}

    def widths(self, names: Mapping[int, str]) -> list[Width]:
        """Return what can be made narrower.

        Args:
            names: Of each variable, by its `id`.
        """
        roots = self.channels.roots
        found: list[Width] = []
        for group in self.channels.groups():
            position = np.full(len(roots) + 1, -1, dtype=np.int64)
            position[group.roots] = np.arange(len(group.roots))
            cuts = [
                Cut(names[variable], cut.axis, position[roots[cut.ids]])
                for variable, cuts in self.slices.items()
                for cut in cuts
                if (position[roots[cut.ids]] >= 0).any()
            ]
            name = group.layers[0] if group.layers else f"channels {group.roots[0]}"
            taken = sum(width.name.partition("#")[0] == name for width in found)
            name = f"{name}#{taken + 1}" if taken else name
            size = len(group.roots)
            found.append(
                Width(name, group.layers or (name,), size, tuple(cuts), group.makers, group.kind, group.normed)
            )
        return found

    def keep(self, widths: Sequence[Width], going: Mapping[str, Array]) -> Array:
        """Return for each channel number whether it stays."""
        roots = self.channels.roots
        stays = np.ones(len(roots), dtype=bool)
        for group, width in zip(self.channels.groups(), widths, strict=True):
            stays[group.roots[going.get(width.name, np.zeros(0, dtype=np.int64))]] = False
        kept: Array = stays[roots]
        return kept

    def entries(self, model: Any, keep: Array) -> list[Any] | None:
        """Return fresh inputs for a nested model, as narrow as what now feeds it; None for what is no such model."""
        ids = self._entries.get(id(model))
        if ids is None:
            return None
        inputs = []
        for tensor, known in zip(_functional(model)._inputs, ids, strict=True):
            width = tensor.shape[-1:] if known is None else (int(keep[known].sum()),)
            shape = (*tensor.shape[:-1], *width)
            inputs.append(keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name))
        return inputs

    def _walk(self, functional: Any, entry: Sequence[Array | None]) -> list[Array | None]:
        known: dict[int, Array | None] = dict(zip(map(id, functional._inputs), entry, strict=True))
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                tensors = node.arguments.keras_tensors
                made = self._pass(node, [known[id(t)] for t in tensors], tensors)
                for tensor, ids in zip(node.outputs, made, strict=True):
                    known[id(tensor)] = self._settled(tensor, ids)
        return [known[id(tensor)] for tensor in functional._outputs]

    def _settled(self, tensor: Any, ids: Array | None) -> Array | None:
        """Return the channels of a tensor; new ones that stay where none are known, or not one for each place."""
        if ids is not None and len(tensor.shape) > 1 and tensor.shape[-1] == len(ids):
            return ids
        if ids is not None:
            self.channels.freeze(ids)
        return self._fresh(tensor, frozen=True)

    def _fresh(self, tensor: Any, *, frozen: bool) -> Array | None:
        width = tensor.shape[-1] if len(tensor.shape) > 1 else None
        return None if width is None else self.channels.new(width, frozen=frozen)

    def _pass(self, node: Any, ids: list[Array | None], tensors: Sequence[Any]) -> list[Array | None]:
        """Return the channels of what a node gives; None for channels of its own that stay."""
        operation = node.operation
        if isinstance(operation, keras.Model) and _functional(operation) is not None:
            self._entries.setdefault(id(operation), ids)
            return self._walk(_functional(operation), ids)
        present = [i for i in ids if i is not None]
        result = None
        if len(present) == len(ids) and ids and len(node.outputs) == 1:
            result = self._single(operation, node, present, tensors)
        if result is not None:
            return [result]
        for known in present:
            self.channels.freeze(known)
        if not isinstance(operation, (_L.InputLayer, _L.Embedding)):
            self._whole[operation.name] = type(operation).__name__
        return [None] * len(node.outputs)

    def _single(self, operation: Any, node: Any, ids: list[Array], tensors: Sequence[Any]) -> Array | None:
        kind = type(operation).__name__
        own = type(operation).__module__.startswith("keras.src.")
        if not own or getattr(operation, "data_format", None) == "channels_first":
            return None
        layer = isinstance(operation, keras.Layer)
        if kind in JOINING:
            return None if _has_constants(node) else self._join(ids, node.outputs[0])
        if kind in PASSING if layer else kind in PASSING_OPS:
            return ids[0] if len(ids) == 1 and _elementwise(operation) else None
        if kind in ALONG:
            return ids[0] if len(ids) == 1 and spares_channels(operation, node, tensors[0].shape) else None
        if not layer:
            return None
        if kind == "Concatenate":
            return self._concatenate(operation, ids, tensors)
        if kind == "MultiHeadAttention":
            return self._attention(operation, node, ids, tensors)
        if len(ids) != 1:
            return None
        if kind == "Flatten":
            places = tensors[0].shape[1:-1]
            return None if None in places else np.tile(ids[0], int(np.prod(places, dtype=np.int64)))
        if kind == "Reshape":
            return self._reshape(operation, ids[0])
        if kind in ("BatchNormalization", "LayerNormalization"):
            return self._norm(operation, ids[0], len(tensors[0].shape))
        if kind in GATES:
            return self._recurrent(operation, ids[0])
        if kind == "Bidirectional":
            return self._both_ways(operation, ids[0])
        return self._kernel(operation, kind, ids[0])

    def _join(self, ids: list[Array], output: Any) -> Array | None:
        width = output.shape[-1]
        full = [i for i in ids if len(i) == width]
        if not full or any(len(i) not in (1, width) for i in ids):
            return None
        if width > 1 and len(full) != len(ids):
            # One value for all channels (a spatial attention map): it is no channel that could go.
            for narrow in (i for i in ids if len(i) == 1):
                self.channels.freeze(narrow)
        for other in full[1:]:
            self.channels.tie(full[0], other)
        return full[0]

    def _concatenate(self, layer: Any, ids: list[Array], tensors: Sequence[Any]) -> Array:
        rank = len(tensors[0].shape)
        if layer.axis in (-1, rank - 1):
            return np.concatenate(ids)
        for other in ids[1:]:
            self.channels.tie(ids[0], other)
        return ids[0]

    def _reshape(self, layer: Any, ids: Array) -> Array | None:
        if not layer.target_shape or layer.target_shape[-1] != len(ids):
            return None
        self._reshaped[id(layer)] = ids
        return ids

    def _norm(self, layer: Any, ids: Array, rank: int) -> Array | None:
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else (layer.axis,)
        if [axis % rank for axis in axes] != [rank - 1]:
            return None
        if self._again(layer, ids) is None:
            self._seen[id(layer)] = (ids, ids)
            for variable in layer.weights:
                self._cut(variable, Slice(0, ids, takes_in=False))
        if isinstance(layer, _L.LayerNormalization):
            self.channels.norm(ids)
        return ids

    def _recurrent(self, layer: Any, ids: Array) -> Array | None:
        if layer.return_state or layer.stateful or not _elementwise(layer):
            return None
        made = self._again(layer, ids)
        if made is not None:
            return made
        gates = GATES[type(layer).__name__]
        made = self.channels.new(layer.units, layer.name, kind="units")
        cell = layer.cell
        self._cut(cell.kernel, Slice(0, ids, takes_in=True), Slice(1, np.tile(made, gates), takes_in=False))
        recurrent = cell.recurrent_kernel
        self._cut(recurrent, Slice(0, made, takes_in=True), Slice(1, np.tile(made, gates), takes_in=False))
        if cell.use_bias:
            self._cut(cell.bias, Slice(len(cell.bias.shape) - 1, np.tile(made, gates), takes_in=False))
        self._made[id(layer)] = made
        self._seen[id(layer)] = (ids, made)
        return made

    def _both_ways(self, layer: Any, ids: Array) -> Array | None:
        one, other = layer.forward_layer, layer.backward_layer
        if type(one).__name__ not in GATES or type(other) is not type(one) or layer.merge_mode is None:
            return None
        if one.units != other.units or layer.return_state:
            return None
        forward, backward = self._recurrent(one, ids), self._recurrent(other, ids)
        if forward is None or backward is None:
            return None
        self.channels.tie(forward, backward)  # both are made from one configuration
        self._made[id(layer)] = forward
        return np.concatenate([forward, backward]) if layer.merge_mode == "concat" else forward

    def _attention(self, layer: Any, node: Any, ids: list[Array], tensors: Sequence[Any]) -> Array | None:
        """Cut attention by heads. Masks of each head and other axes than the second are not followed."""
        if type(layer) is not _L.MultiHeadAttention or getattr(layer, "_use_gate", False) or _has_constants(node):
            return None
        given = inspect.signature(layer.call).bind(*node.arguments.args, **node.arguments.kwargs).arguments
        sides = [given.pop(name, None) for name in ("query", "value", "key")]
        sides[2] = sides[1] if sides[2] is None else sides[2]
        places = dict(zip(map(id, tensors), ids, strict=True))
        masks = [each for each in given.values() if id(each) in places]
        if any(id(each) not in places or len(each.shape) != 3 for each in sides) or any(
            len(each.shape) > 3 for each in masks
        ):
            return None
        for mask in masks:
            self.channels.freeze(places[id(mask)])  # its last axis is keys
        query, value, key = (places[id(each)] for each in sides)
        seen = self._heads.get(id(layer))
        if seen is None:
            heads = self.channels.new(layer.num_heads, layer.name, kind="heads")
            width = layer._output_dense.kernel.shape[-1]
            made = query if layer._output_shape is None else self.channels.new(width, layer.name)
            for dense, taken in ((layer._query_dense, query), (layer._key_dense, key), (layer._value_dense, value)):
                self._cut(dense.kernel, Slice(0, taken, takes_in=True), Slice(1, heads, takes_in=False))
                if dense.bias is not None:
                    self._cut(dense.bias, Slice(0, heads, takes_in=False))
            output = layer._output_dense
            self._cut(output.kernel, Slice(0, heads, takes_in=True), Slice(2, made, takes_in=False))
            if output.bias is not None:
                self._cut(output.bias, Slice(0, made, takes_in=False))
            self._heads[id(layer)] = seen = (query, key, value, heads, made)
        else:
            for known, now in zip(seen[:3], (query, key, value), strict=True):
                self.channels.tie(known, now)
        return seen[4]

    def _kernel(self, layer: Any, kind: str, ids: Array) -> Array | None:
        """Cut dense and convolution layers, whose kernels differ in the order of their last two axes."""
        depthwise = kind in ("DepthwiseConv1D", "DepthwiseConv2D")
        separable = kind in ("SeparableConv1D", "SeparableConv2D")
        plain = kind in ("Dense", "Conv1D", "Conv2D", "Conv3D")
        transposed = kind in ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
        if not (depthwise or separable or plain or transposed):
            return None
        if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            return None
        if (getattr(layer, "groups", 1) or 1) > 1 and not (depthwise or separable):
            return None
        again = self._again(layer, ids)
        if again is not None:
            return again
        if depthwise:
            made = np.repeat(ids, layer.depth_multiplier)
            self._cut(layer.kernel, Slice(len(layer.kernel.shape) - 2, ids, takes_in=False))
            if layer.use_bias:
                self._cut(layer.bias, Slice(0, made, takes_in=False))
            if not _elementwise(layer):
                self.channels.freeze(made)
            self._seen[id(layer)] = (ids, made)
            return made
        made = self.channels.new(
            layer.units if kind == "Dense" else layer.filters, layer.name, frozen=not _elementwise(layer)
        )
        if separable:
            rank = len(layer.depthwise_kernel.shape)
            self._cut(layer.depthwise_kernel, Slice(rank - 2, ids, takes_in=False))
            main, taken = layer.pointwise_kernel, np.repeat(ids, layer.depth_multiplier)
        else:
            main, taken = layer.kernel, ids
        last = len(main.shape) - 1
        axis_in, axis_out = (last, last - 1) if transposed else (last - 1, last)
        self._cut(main, Slice(axis_in, taken, takes_in=True), Slice(axis_out, made, takes_in=False))
        if layer.use_bias:
            self._cut(layer.bias, Slice(0, made, takes_in=False))
        self._made[id(layer)] = made
        self._seen[id(layer)] = (ids, made)
        return made

    def _again(self, layer: Any, ids: Array) -> Array | None:
        """Return what a shared layer made at its first call, and tie what it takes in; None at the first."""
        if id(layer) not in self._seen:
            return None
        taken, made = self._seen[id(layer)]
        self.channels.tie(taken, ids)
        return made

    def _cut(self, variable: Any, *cuts: Slice) -> None:
        self.slices.setdefault(id(variable), []).extend(cuts)


def _functional(model: Any) -> Any:
    """Return the graph of a functional or built Sequential model, None of a subclassed one."""
    if isinstance(model, keras.Sequential):
        return model._functional
    return model if hasattr(model, "_nodes_by_depth") and is_graph(model) else None


def _has_constants(node: Any) -> bool:
    """Tell whether an array of fixed size goes in, which would not shrink with the channels."""
    arguments = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return any(not isinstance(a, keras.KerasTensor) and np.ndim(a) > 0 for a in arguments if a is not None)


def _elementwise(layer: Any) -> bool:
    """Tell whether what the layer applies to its output treats each channel by itself."""
    for name in ("activation", "recurrent_activation"):
        function = getattr(layer, name, None)
        if function is not None:
            own = str(getattr(function, "__module__", "")).startswith("keras.")
            if not own or getattr(function, "__name__", "") not in ELEMENTWISE:
                return False
    return np.ndim(getattr(layer, "scale", 1.0)) == 0
