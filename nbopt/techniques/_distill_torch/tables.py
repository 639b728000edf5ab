"""What a torch module looks up in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nbopt.batches import Inputs
from nbopt.frameworks._torch_module import call, clone, tensors

ATEN = torch.ops.aten
ROWS = (ATEN.embedding, ATEN._embedding_bag, ATEN._embedding_bag_forward_only, ATEN.index)
"""Operations whose first argument is a table; `table[ids]` is the last."""
COLUMNS = (ATEN.scatter, ATEN.scatter_)
"""What `one_hot` is made of: its first argument has a column for each token."""


def vocabulary(model: nn.Module, inputs: Inputs) -> int:
    """Return how many different tokens a module can look up: rows of its largest table, 0 where it has none.

    Told by what is called and not by layers: a table may be a plain parameter, or a column for each token.

    Args:
        model: It stays as it is.
        inputs: Of two rows or more.
    """
    twin = clone(model)
    with torch.no_grad(), Tables() as seen:
        call(twin, tensors(twin, inputs))
    return seen.largest


class Tables(TorchDispatchMode):
    """Watch for tables that are looked into."""

    largest = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry an operation out."""
        known = getattr(func, "overloadpacket", None)
        if known in ROWS:
            self.largest = max(self.largest, int(args[0].shape[0]))
        elif known in COLUMNS:
            self.largest = max(self.largest, int(args[0].shape[-1]))
        return func(*args, **(kwargs or {}))
