"""Which channels depend on each other: numbers for each, and ties. NumPy only, no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Group:
    """Hold channels that some layer makes together with others of them.

    Args:
        layers: The layers that make them.
        roots: A number for each set of tied channels that may go.
        makers: For each layer the positions in `roots` that it makes.
        normed: A normalization takes its mean over them.
        kind: "channels", "heads" or "units".
    """

    layers: tuple[str, ...]
    roots: Array
    makers: tuple[Array, ...]
    normed: bool
    kind: str


class Channels:
    """Follow channels through a network: each has a number, and channels that must go together are tied.

    A layer that makes channels asks for `new` numbers. Whatever takes them in slices its weights by the same
    numbers, so a removal reaches every weight that holds the channel. An addition ties the numbers of its sides.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._producers: list[int] = []
        self._names: list[tuple[str, str]] = []
        self._frozen: set[int] = set()
        self._normed: set[int] = set()

    def new(self, count: int, maker: str = "", *, kind: str = "channels", frozen: bool = False) -> Array:
        """Return numbers for the `count` channels that one layer makes; frozen ones are never removed."""
        first = len(self._parents)
        ids = np.arange(first, first + count)
        self._parents += ids.tolist()
        self._producers += [len(self._names)] * count
        self._names.append((maker, kind))
        if frozen:
            self._frozen.update(ids.tolist())
        return ids

    def tie(self, left: Array, right: Array) -> None:
        """Let channels go together, position by position; both have one length."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            root, other = self._find(a), self._find(b)
            if root != other:
                self._parents[max(root, other)] = min(root, other)

    def freeze(self, ids: Array) -> None:
        """Let channels stay, and all that are tied to them."""
        self._frozen.update(ids.tolist())

    def norm(self, ids: Array) -> None:
        """Say that a normalization takes its mean over channels."""
        self._normed.update(ids.tolist())

    @property
    def roots(self) -> Array:
        """Return for each number the one that stands for all that are tied to it."""
        return np.array([self._find(number) for number in range(len(self._parents))], dtype=np.int64)

    def groups(self) -> list[Group]:
        """Return the channels that may go, by sets of layers that share any."""
        roots = self.roots
        frozen = {int(roots[number]) for number in self._frozen}
        normed = {int(roots[number]) for number in self._normed}
        members: dict[int, set[int]] = {}
        for number, root in enumerate(roots.tolist()):
            members.setdefault(root, set()).add(self._producers[number])
        found = []
        for group in self._joined(members):
            free = sorted(root for root in group if root not in frozen)
            producers = sorted(set().union(*(members[root] for root in group)))
            if not free:
                continue
            # A layer that also makes channels which stay can give all of the others.
            makers = [
                np.array([i for i, root in enumerate(free) if producer in members[root]], dtype=np.int64)
                for producer in producers
                if not any(producer in members[root] for root in group if root in frozen)
            ]
            names = [self._names[producer] for producer in producers]
            layers = tuple(dict.fromkeys(name for name, _ in names if name))
            kind = next((kind for _, kind in names if kind != "channels"), "channels")
            found.append(Group(layers, np.array(free), tuple(makers), bool(normed & set(free)), kind))
        return found

    def _find(self, number: int) -> int:
        root = number
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[number] != root:
            self._parents[number], number = root, self._parents[number]
        return root

    def _joined(self, members: dict[int, set[int]]) -> list[list[int]]:
        """Return roots by sets of layers that share any channel."""
        parents = list(range(len(self._names)))

        def find(layer: int) -> int:
            while parents[layer] != layer:
                parents[layer] = parents[parents[layer]]
                layer = parents[layer]
            return layer

        for makers in members.values():
            first, *others = sorted(makers)
            for other in others:
                parents[find(other)] = find(first)
        groups: dict[int, list[int]] = {}
        for root, makers in members.items():
            groups.setdefault(find(min(makers)), []).append(root)
        return list(groups.values())
