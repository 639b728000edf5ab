"""Let sequences of any length through LSTM and GRU while torch traces and exports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._C import DispatchKey
from torch._decomp import decomposition_table

OPS = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)
"""Those that the exporter writes as one node. A plain nn.RNN has none: it is unrolled to the example's length."""


def _shapes(
    input: torch.Tensor,  # noqa: A002 - the operator's own name, which may be used as a keyword
    hx: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, ...]:
    """Return tensors of the shapes that the operator gives: output, hidden state and, of an LSTM, cell state."""
    states = hx if isinstance(hx, (tuple, list)) else (hx,)
    output = input.new_empty([*input.shape[:-1], states[0].shape[-1] * (2 if bidirectional else 1)])
    return (output, *(state.new_empty(state.shape) for state in states))


@contextmanager
def traced_for_any_length() -> Iterator[None]:
    """Keep `torch.export` from running the steps of a sequence one by one, which fixes their number to the example's.

    Only shapes are asked of an operator while its node is recorded. Without this, torch 2.13 takes the length for a
    constant: `states.mean(1)` then divides by the example's length whatever comes in.
    """
    kept = [dict(op.py_kernels) for op in OPS]
    try:
        for op in OPS:
            for key in (DispatchKey.CompositeImplicitAutograd, DispatchKey.Autograd):
                op.py_kernels[key] = _shapes
            op._dispatch_cache.clear()
        yield
    finally:
        for op, table in zip(OPS, kept, strict=True):
            op.py_kernels.clear()
            op.py_kernels.update(table)
            op._dispatch_cache.clear()


@contextmanager
def exported_for_any_length() -> Iterator[None]:
    """Do the same while `torch.onnx.export` traces the program once more."""
    kept = {op: decomposition_table[op] for op in OPS}
    decomposition_table.update(dict.fromkeys(OPS, _shapes))
    try:
        yield
    finally:
        decomposition_table.update(kept)
