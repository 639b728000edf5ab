"""Small models of every shape that users bring, and data to go with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Array = np.ndarray[Any, Any]


def mlp(inputs: int = 64, classes: int = 10, hidden: int = 64) -> nn.Sequential:
    """Return a multilayer perceptron in evaluation mode."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)).eval()


class Cnn(nn.Module):
    """Convolutions with batch norm, so with buffers, on (rows, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).flatten(1))


class Lstm(nn.Module):
    """A recurrent net on (rows, steps, features) of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.cells(x)
        return self.head(states[:, -1])


@dataclass
class Outputs:
    """What models of transformers libraries return: an object with keys and attributes."""

    logits: torch.Tensor

    def keys(self) -> list[str]:
        return ["logits"]


class TextEncoder(nn.Module):
    """A transformer that is called by name with token ids and a mask, and whose first layer has no float input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Outputs:
        hidden = self.encoder(self.embed(input_ids), src_key_padding_mask=attention_mask == 0)
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return Outputs(self.head((hidden * kept).sum(1) / kept.sum(1)))


class TwoInputs(nn.Module):
    """Numbers and categories, by position."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.body = nn.Linear(6 + 4, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, numbers: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
        return self.head(functional.relu(self.body(torch.cat([numbers, self.embed(category)], -1))))


class WholeBatch(nn.Module):
    """Takes the batch as one mapping."""

    def __init__(self, inputs: int = 6, outputs: int = 3) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(inputs, 16), nn.Linear(inputs, 16)
        self.head = nn.Linear(16, outputs)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        hidden = torch.relu(self.left(batch["a"])) + self.right(batch["b"])
        return {"loss": None, "logits": self.head(hidden)}


class TupleOutput(nn.Module):
    """A model that returns its scores and its hidden state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = functional.relu(self.body(x))
        return self.head(hidden), hidden


class PixelScale(nn.Module):
    """A first layer without parameters, on bytes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float32) / 16


def train(model: nn.Module, x: Array, y: Array, *, steps: int = 60, rate: float = 1e-2) -> nn.Module:
    """Train a classifier in a second, the same on every call."""
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()
