"""Embedding tables of a torch module with one row for all that nobody looks up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from nbopt.batches import Batch
from nbopt.frameworks._torch_module import call, clone, tensors
from nbopt.narrowing.vocabulary import OWN, places, smaller_table

Array = np.ndarray[Any, Any]


STOPPED = (RuntimeError, IndexError, ValueError, TypeError, AttributeError, AssertionError)
"""What a user's `forward` raises that asks a table for more than rows."""


class SharedRows(nn.Embedding):
    """Look rows up in a smaller table, in which the rows that went share the last.

    Args:
        source: The whole table.
        kept: Its rows that stay, in order.
    """

    def __init__(self, source: nn.Embedding, kept: Array) -> None:
        weight, found, padding = _smaller(source, kept)
        super().__init__(
            len(weight),
            source.embedding_dim,
            padding,
            source.max_norm,
            source.norm_type,
            source.scale_grad_by_freq,
            source.sparse,
            _weight=weight,
        )
        _take_over(self, source, found)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - Embedding's own name
        return super().forward(self.places[input])


class SharedBags(nn.EmbeddingBag):
    """Do the same where rows are summed, averaged or compared on the way."""

    def __init__(self, source: nn.EmbeddingBag, kept: Array) -> None:
        weight, found, padding = _smaller(source, kept)
        super().__init__(
            len(weight),
            source.embedding_dim,
            source.max_norm,
            source.norm_type,
            source.scale_grad_by_freq,
            source.mode,
            source.sparse,
            weight,
            source.include_last_offset,
            padding,
        )
        _take_over(self, source, found)

    def forward(
        self,
        input: torch.Tensor,  # noqa: A002 - EmbeddingBag's own name
        offsets: torch.Tensor | None = None,
        per_sample_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        # Rows and offsets must be of one dtype.
        return super().forward(self.places[input].to(input.dtype), offsets, per_sample_weights)


Table: TypeAlias = nn.Embedding | nn.EmbeddingBag

SMALLER: dict[type[Table], Callable[[Any, Array], Table]] = {nn.Embedding: SharedRows, nn.EmbeddingBag: SharedBags}
"""For each kind of table the form that has fewer rows."""


def _smaller(source: Table, kept: Array) -> tuple[torch.Tensor, Array, int | None]:
    """Return the smaller table, the place of each row in it, and that of the padding."""
    table = source.weight.detach()
    found = places(source.num_embeddings, kept)
    weight = torch.from_numpy(smaller_table(table.float().cpu().numpy(), kept)).to(table)
    return weight, found, None if source.padding_idx is None else int(found[source.padding_idx])


def _take_over(made: Table, source: Table, found: Array) -> None:
    made.weight.requires_grad_(source.weight.requires_grad)
    made.register_buffer("places", torch.from_numpy(found).to(source.weight.device))
    made.train(source.training)


class _Counted(Exception):
    """All look-ups of a forward pass are counted; what comes after them is of no interest."""


def lookups(model: nn.Module, batches: Iterable[Batch]) -> dict[str, Array]:
    """Return how often each row of each embedding table is looked up, by the module's name.

    The first batch runs to its end and tells which tables there are look-ups in; where that is one in each, the others
    stop after as many. Of a transformer, that is a hundredth of the work. A table that is looked up again and again, as
    for each step of a sequence, may be so once more for a longer one.
    """
    twin = clone(model)  # a hook would stay on the user's model where the pass is interrupted
    tables = {name: module for name, module in twin.named_modules() if type(module) in SMALLER}
    counts = {name: np.zeros(module.num_embeddings, np.int64) for name, module in tables.items()}
    if not tables:
        return {}
    calls: Counter[str] = Counter()
    known: set[str] = set()

    def counting(name: str) -> Any:
        def count(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            rows = args[0] if args else kwargs["input"]
            counts[name] += np.bincount(rows.detach().reshape(-1).cpu().numpy(), minlength=len(counts[name]))
            calls[name] += 1
            if known and calls.keys() >= known:
                raise _Counted

        return count

    for name, module in tables.items():
        module.register_forward_pre_hook(counting(name), with_kwargs=True)
    first = True
    with torch.no_grad():
        for batch in batches:
            calls.clear()
            with suppress(_Counted):
                call(twin, tensors(twin, batch.inputs))
            if first:
                first, known = False, set(calls) if set(calls.values()) == {1} else set()
    for name, module in tables.items():
        if module.padding_idx is not None:
            counts[name][module.padding_idx] = OWN  # its row gets no gradient: it stays its own
    return counts


def with_shared_rows(model: nn.Module, kept: Mapping[str, Array], batch: Batch) -> tuple[nn.Module, dict[str, str]]:
    """Return a copy whose tables hold the rows that stay and one for the rest, and why a table was left whole.

    Args:
        model: It is not changed.
        kept: The rows that stay, by the module's name.
        batch: On which it is tried whether the table is read by look-ups alone.
    """
    smaller = clone(model)
    inputs = tensors(smaller, batch.inputs)
    owners: dict[int, int] = {}
    for module in smaller.modules():
        for parameter in module.parameters(recurse=False):
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    left: dict[str, str] = {}
    with torch.no_grad():
        expected = call(smaller.eval(), inputs)
        for name, rows in kept.items():
            table = smaller.get_submodule(name)
            assert isinstance(table, Table)
            form = SMALLER[type(table)]
            if owners[id(table.weight)] > 1:
                left[name] = "another layer has the same weights"
                continue
            # With all of its rows in another order the model must compute what it did, or the table is read by other
            # ways than look-ups, as where it is multiplied with to give a word for each output.
            smaller.set_submodule(name, form(table, np.arange(table.num_embeddings)[::-1].copy()))
            try:
                same = torch.equal(call(smaller, inputs), expected)
            except STOPPED:
                same = False
            smaller.set_submodule(name, form(table, rows) if same else table)
            if not same:
                left[name] = "the model does not only look rows up in it"
    return smaller, left
