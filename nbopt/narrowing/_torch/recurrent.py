"""Hidden units of torch's LSTM, GRU and RNN: which weights hold them, and the layer without some."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.narrowing.widths import Cut

Array = np.ndarray[Any, Any]
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


class StandIn(nn.Module):
    """Take a recurrent layer's place while the dependency graph is traced.

    torch-pruning 1.6.1 slices an LSTM's gates wrongly (IndexError when the smaller one runs) and does not know a
    GRU. A linear layer of the same inputs and outputs has the same dependencies around it; the gates are sliced here.

    Args:
        layer: What it stands for.
        whole: The layer keeps its size: only its inputs are followed.
    """

    def __init__(self, layer: nn.RNNBase, *, whole: bool = False) -> None:
        super().__init__()
        self.layer = [layer]  # in a list, so that it is no submodule: its weights must not be traced
        self.whole = whole
        weight = layer.weight_ih_l0
        self.line = nn.Linear(
            layer.input_size,
            (layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional),
            device=weight.device,
            dtype=weight.dtype,
        )

    def __getattr__(self, name: str) -> Any:
        """Answer as the layer does what a user's `forward` asks of it: `hidden_size`, `flatten_parameters`."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattribute__("layer")[0], name)

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 - the layer's own names
        del hx
        layer, x = self.layer[0], input
        if isinstance(x, nn.utils.rnn.PackedSequence):
            y: Any = x._replace(data=self.line(x.data))
            last = y.data[:1].expand(int(x.batch_sizes[0]), -1)
        else:
            y = self.line(x)
            last = y[-1] if x.ndim == 2 else y[:, -1] if layer.batch_first else y[-1]
        count = layer.num_layers * (1 + layer.bidirectional)
        if self.whole:
            hidden = self._wide(last, layer.proj_size or layer.hidden_size, count)
            return y, ((hidden, self._wide(last, layer.hidden_size, count)) if layer.mode == "LSTM" else hidden)
        if layer.bidirectional:
            # The two directions lie one after the other along the width, and apart in the state.
            hidden = torch.stack([*last.chunk(2, -1)] * layer.num_layers)
        else:
            hidden = last.unsqueeze(0).expand(count, *last.shape)
        return y, ((hidden, hidden) if layer.mode == "LSTM" else hidden)

    def _wide(self, last: torch.Tensor, width: int, count: int) -> torch.Tensor:
        mean = last.mean(-1, keepdim=True)
        return mean.expand(*mean.shape[:-1], width).unsqueeze(0).expand(count, *mean.shape[:-1], width)


def cuts_made(name: str, layer: nn.RNNBase, units: Array) -> list[Cut]:
    """Return what holds the hidden units.

    Args:
        name: The layer's name.
        layer: It has as many hidden units in each of its layers and directions; they go together by position.
        units: A unit for each hidden position of one direction.
    """
    gates = np.tile(units, GATES[layer.mode])
    cuts = []
    for index in range(layer.num_layers):
        for suffix in ("", "_reverse") if layer.bidirectional else ("",):
            end = f"l{index}{suffix}"
            cuts += [Cut(f"{name}.weight_ih_{end}", 0, gates), Cut(f"{name}.weight_hh_{end}", 0, gates)]
            cuts.append(Cut(f"{name}.weight_hh_{end}", 1, units))
            if layer.bias:
                cuts += [Cut(f"{name}.bias_ih_{end}", 0, gates), Cut(f"{name}.bias_hh_{end}", 0, gates)]
            if index:
                both = np.tile(units, 2 if layer.bidirectional else 1)
                cuts.append(Cut(f"{name}.weight_ih_{end}", 1, both))
    return cuts


def cuts_taken(name: str, layer: nn.RNNBase, units: Array) -> list[Cut]:
    """Return what holds the layer's inputs."""
    suffixes = ("", "_reverse") if layer.bidirectional else ("",)
    return [Cut(f"{name}.weight_ih_l0{suffix}", 1, units) for suffix in suffixes]


def resize(layer: nn.RNNBase) -> None:
    """Write the sizes that the layer's weights now have into its attributes."""
    layer.input_size = layer.weight_ih_l0.shape[1]
    layer.hidden_size = len(layer.weight_hh_l0) // GATES[layer.mode]
    layer._init_flat_weights()  # it computes by a list of them
