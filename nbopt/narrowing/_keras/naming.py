"""Names of a Keras model's weights: alike in each copy of it, and in the model with layers put in between."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from nbopt.frameworks._keras_dialect import is_graph, kinds, name_of, own_variables, path_of


def names_of(model: Any) -> dict[int, str]:
    """Return the name of each variable by its `id`: the layers that it lies in, and its own, "block/conv/kernel".

    Neither Keras's own paths, in which layers that are made in others are numbered anew in each copy ("dense_7"), nor
    places among all variables, which move where Dropout or a norm is put in.
    """
    names: dict[int, str] = {}
    visited: set[int] = set()

    def walk(layer: Any, path: tuple[str, ...]) -> None:
        leaves = [_plain(name_of(variable), "variable") for variable in own_variables(layer)]
        for variable, leaf in zip(own_variables(layer), _numbered(leaves), strict=True):
            names.setdefault(id(variable), "/".join([*path, leaf]))
        inner = [each for each in layer._flatten_layers(include_self=False, recursive=False) if id(each) not in visited]
        visited.update(map(id, inner))
        # A graph's layers have their names from its configuration, and so has each copy; those that a layer makes may
        # have been given none.
        graph = isinstance(layer, kinds("Model")) and is_graph(layer)
        called = [each.name if graph else _plain(each.name, _snake(type(each).__name__)) for each in inner]
        for each, name in zip(inner, _numbered(called), strict=True):
            walk(each, (*path, name))

    walk(model, ())
    for index, variable in enumerate(model.variables):
        names.setdefault(id(variable), f"{index}:{path_of(variable)}")  # of a generator of random numbers
    return names


def _plain(name: str, kind: str) -> str:
    """Return a name without the number that Keras gave it, where nobody chose it."""
    return kind if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", name) else name


def _snake(kind: str) -> str:
    """Return the name that Keras gives a layer of a class: "layer_normalization"."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", kind)).lower()


def _numbered(names: list[str]) -> list[str]:
    """Return names that differ: the second of one name as "name#2"."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found
