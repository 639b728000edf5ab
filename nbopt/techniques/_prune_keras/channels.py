"""Which channels go: coupled channels, their importance, and a choice. NumPy only, no framework."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Channels:
    """Follow channels through a network: each has a number, and channels that must go together are tied.

    A layer that makes channels asks for `new` numbers. Whatever takes them in slices its weights by the same
    numbers, so a removal reaches every weight that holds the channel. An addition ties the numbers of its sides.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._producers: list[int] = []
        self._frozen: set[int] = set()
        self._importance: list[tuple[Array, Array]] = []
        self._layers = 0

    def new(self, count: int, *, frozen: bool = False) -> Array:
        """Return numbers for the `count` channels that one layer makes; frozen ones are never removed."""
        first = len(self._parents)
        ids = np.arange(first, first + count)
        self._parents += ids.tolist()
        self._producers += [self._layers] * count
        self._layers += 1
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

    def weigh(self, ids: Array, magnitudes: Array) -> None:
        """Add to the importance of channels.

        Args:
            ids: A channel for each entry; one may occur often, as after a flatten.
            magnitudes: Norms, 0 or more, one an entry. They count relative to their mean, so that layers with
                large weights do not speak for the others.
        """
        mean = float(magnitudes.mean()) if magnitudes.size else 0.0
        if mean > 0:
            share = np.bincount(ids).astype(np.float64)
            self._importance.append((ids, magnitudes / mean / share[ids]))

    def keep(self, fraction: float) -> Array:
        """Return for each number whether it stays.

        In each set of layers that share channels `round(fraction * channels)` go, those of least importance;
        every layer keeps at least one.

        Args:
            fraction: Share that goes, 0 to 1, both excluded.
        """
        count = len(self._parents)
        roots = np.array([self._find(i) for i in range(count)], dtype=np.int64)
        importance = np.zeros(count)
        for ids, values in self._importance:
            np.add.at(importance, roots[ids], values)
        frozen = {int(roots[i]) for i in self._frozen}
        members: dict[int, set[int]] = {}
        left = np.zeros(self._layers, dtype=np.int64)
        for number, root in enumerate(roots.tolist()):
            members.setdefault(root, set()).add(self._producers[number])
        for makers in members.values():
            left[sorted(makers)] += 1
        stays = np.ones(count, dtype=bool)
        for group in self._groups(members):
            free = sorted((r for r in group if r not in frozen), key=lambda r: (importance[r], r))
            going = round(fraction * len(free))
            for root in free:
                making = sorted(members[root])
                if going and (left[making] > 1).all():
                    stays[root] = False
                    left[making] -= 1
                    going -= 1
        kept: Array = stays[roots]
        return kept

    def _find(self, number: int) -> int:
        root = number
        while self._parents[root] != root:
            root = self._parents[root]
        while self._parents[number] != root:
            self._parents[number], number = root, self._parents[number]
        return root

    def _groups(self, members: dict[int, set[int]]) -> list[list[int]]:
        """Return roots by sets of layers that share any channel."""
        parents = list(range(self._layers))

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
