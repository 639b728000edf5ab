"""Simple students in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.frameworks._torch_random import seeded
from nbopt.techniques._distill.simple import CHANNELS, DROPOUT, EMBEDDED, GAIN, HIDDEN, STARTED, Column, Design


def build(design: Design, seed: int) -> SimpleStudent:
    """Return an untrained module of a design, in evaluation mode; the user's random state stays as it is."""
    with seeded(seed, str(torch.get_default_device())):
        return SimpleStudent(design).eval()


class SimpleStudent(nn.Module):
    """Be a linear model, an MLP, a bag of embeddings or a small CNN, with the inputs of another model.

    Args:
        design: What it is.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.word, self.kind, self.places = design.word, design.kind, design.places
        self.names = [column.name for column in design.columns]
        self.outputs = design.outputs
        self.columns = [(c.use, c.shape, c.channel_axis, c.size, c.in_places) for c in design.columns]
        self.tables = nn.ModuleDict()
        width = 0
        for index, column in enumerate(design.columns):
            width += self._take(index, column, design)
        units = int(np.prod(design.outputs)) if not design.places else design.outputs[-1]
        self.body = self._body(width)
        self.head = nn.Linear(self.after, units)
        values = design.kind == "regression"
        self.register_buffer("shift", torch.as_tensor(design.shift, dtype=torch.float32) if values else None)
        self.register_buffer("scale", torch.as_tensor(design.scale, dtype=torch.float32) if values else None)

    def _take(self, index: int, column: Column, design: Design) -> int:
        """Make what one input needs, and return how many numbers it gives for each row, or place."""
        if column.use == "numbers":
            self.register_buffer(f"mean{index}", torch.as_tensor(column.mean, dtype=torch.float32))
            self.register_buffer(f"spread{index}", torch.as_tensor(column.spread, dtype=torch.float32))
            if design.word.startswith("conv") or design.places:
                return column.channels
            return column.size or 2 * column.channels
        if column.use != "tokens":
            return 0
        many = max(1, int(np.prod(design.outputs)) if not design.places else design.outputs[-1])
        width = many if design.word == "linear" and not column.in_places and not design.places else EMBEDDED
        self.tables[str(index)] = nn.Embedding(column.size, width)
        nn.init.normal_(self.tables[str(index)].weight, std=STARTED)
        flat = column.in_places and not design.word.startswith("conv") and not design.places
        return width * (column.shape[0] or 1 if flat and column.shape else 1)

    def _body(self, width: int) -> nn.Module:
        if self.word == "mlp":
            self.after = HIDDEN
            return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT))
        if self.word == "conv1d":
            layers: list[nn.Module] = []
            for size in (width, CHANNELS):
                layers += [nn.Conv1d(size, CHANNELS, 5, padding=2, bias=False), nn.BatchNorm1d(CHANNELS), nn.ReLU()]
            self.after = CHANNELS if self.places else 2 * CHANNELS
            return nn.Sequential(*layers)
        if self.word == "conv2d":
            layers = []
            for size, out in ((width, CHANNELS), (CHANNELS, 2 * CHANNELS)):
                layers += [nn.Conv2d(size, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            self.after = 4 * CHANNELS
            return nn.Sequential(*layers)
        self.after = width
        return nn.Identity()

    def forward(self, *values: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        """Return an output of the teacher's shape and meaning."""
        given = [named[name] for name in self.names] if named else list(values)
        if self.word.startswith("conv") or self.places:
            hidden = self._along(given)
        else:
            hidden = self.body(torch.cat(self._features(given), -1))
        out = self.head(hidden)
        if not self.places:
            out = out.reshape(-1, *self.outputs)
        if self.scale is not None:
            out = out * self.scale + self.shift
        if self.kind == "probabilities":
            return out.softmax(-1)
        if self.kind == "log_probabilities":
            return out.log_softmax(-1)
        return out.sigmoid() if self.kind.endswith("_probabilities") else out

    def _scaled(self, index: int, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.head.weight.dtype) - getattr(self, f"mean{index}")) / getattr(self, f"spread{index}")

    def _looked_up(self, index: int, x: torch.Tensor, given: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the embeddings of tokens, and which of them are no padding."""
        table = self.tables[str(index)]
        ids = x.long().clamp_max(table.num_embeddings - 1)
        masks = [other for (use, *_), other in zip(self.columns, given, strict=True) if use == "mask"]
        real = masks[0] != 0 if masks and masks[0].ndim == x.ndim else x != 0
        return GAIN * table(ids), real.to(self.head.weight.dtype)

    def _features(self, given: list[torch.Tensor]) -> list[torch.Tensor]:
        found = []
        for index, ((use, _, axis, size, in_places), x) in enumerate(zip(self.columns, given, strict=True)):
            if use == "numbers":
                scaled = self._scaled(index, x)
                if size or scaled.ndim == 1:
                    found.append(scaled.reshape(len(scaled), -1))
                elif scaled.ndim == 2:
                    found += [scaled.mean(1, keepdim=True), scaled.amax(1, keepdim=True)]
                else:
                    time = 2 if axis == 0 else 1
                    found += [scaled.mean(time), scaled.amax(time)]
            elif use == "tokens":
                embedded, real = self._looked_up(index, x, given)
                if in_places:
                    found.append(embedded.reshape(len(embedded), -1))
                else:
                    real = real.unsqueeze(-1)
                    found.append((embedded * real).sum(1) / real.sum(1).clamp_min(1).sqrt())
        return found

    def _along(self, given: list[torch.Tensor]) -> torch.Tensor:
        """Return what a CNN, or a layer at each place, makes of the one input that is used."""
        index, x = next((i, v) for i, v in enumerate(given) if self.columns[i][0] in ("numbers", "tokens"))
        use, _, axis, *_ = self.columns[index]
        real: Any = None
        if use == "tokens":
            x, real = self._looked_up(index, x, given)
            x = (x * real.unsqueeze(-1)).transpose(1, 2)
        else:
            x = self._scaled(index, x)
            x = x.unsqueeze(1) if x.ndim == 2 else x if axis == 0 else x.movedim(-1, 1)
        if self.word == "linear":
            return x.transpose(1, 2)
        x = self.body(x)
        if self.places:
            return x.transpose(1, 2)
        rest = tuple(range(2, x.ndim))
        if real is None:
            return torch.cat([x.mean(rest), x.amax(rest)], 1)
        real = real.unsqueeze(1)
        return torch.cat([(x * real).sum(2) / real.sum(2).clamp_min(1), (x * real).amax(2)], 1)
