"""torch-pruning's groups, followed so far as they have an end, and with what shares a place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

MOST_MEMBERS = 4
"""Members that a group may have for each node of the graph: one of a chain of concatenations has less than two."""


class Endless(Exception):
    """A group grows without end."""


@contextmanager
def watched(nodes: int) -> Iterator[None]:
    """Stop where torch-pruning (1.6.1) follows a group without end, and keep which units share a place.

    `torch.cat((x[..., half:], x[..., :half]), -1)`, Llama's rotary positions, moves a unit's place on at each turn, so
    that none is one that it had met.

    Raises:
        Endless: A group has many times more members than the graph has nodes.
    """
    from torch_pruning.dependency import graph as graph_module

    most = MOST_MEMBERS * max(nodes, 100)

    class Group(graph_module.Group):
        def __init__(self) -> None:
            super().__init__()
            self.together: set[tuple[int, int]] = set()

        def add_dep(self, dep: Any, idxs: Any) -> None:
            if len(self) > most:
                raise Endless
            super().add_dep(dep, idxs)

        def add_and_merge(self, dep: Any, idxs: Any) -> None:
            # Of two units at one place torch-pruning keeps the first: of a gate, `a * b` of two halves of one layer.
            for other, places in self.items:
                if other.target == dep.target and other.handler == dep.handler:
                    first = {place.idx: place.root_idx for place in reversed(places)}
                    for place in idxs:
                        before, now = first.get(place.idx), place.root_idx
                        if before is not None and now is not None and before != now:
                            self.together.add((before, now))
                    break
            super().add_and_merge(dep, idxs)

    whole = graph_module.Group
    graph_module.Group = Group
    try:
        yield
    finally:
        graph_module.Group = whole


def without_cache(model: nn.Module) -> None:
    """Let a decoder of transformers keep no keys and values: torch-pruning stops where they are joined to none."""
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "use_cache", False):
        config.use_cache = False  # the model is a copy
