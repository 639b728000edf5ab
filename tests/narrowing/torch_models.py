"""Torch models of every structure that units are taken out of, and what takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nbopt.data import Split
from nbopt.narrowing._torch import LOWERING
from nbopt.narrowing._torch.widths import TracedModule
from nbopt.narrowing.lowering import Ranking
from nbopt.narrowing.subjects import Units
from tests import models

RNG = np.random.default_rng(0)


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def text(rows: int) -> dict[str, Any]:
    return {"input_ids": RNG.integers(0, 50, (rows, 6)), "attention_mask": np.ones((rows, 6), np.int64)}


class Joined(nn.Module):
    """An image, flattened, beside a table."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.table = nn.Linear(5, 16)
        self.head = nn.Sequential(nn.Linear(80, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.image(image), self.table(table).relu()], 1))


class Recurrent(nn.Module):
    """A recurrent net whose answer comes from its outputs, or from its last state."""

    def __init__(self, kind: Any, *, state: bool = False, **more: Any) -> None:
        super().__init__()
        self.first = nn.Linear(8, 12)
        self.cells = kind(12, 16, batch_first=True, **more)
        self.norm = nn.BatchNorm1d(more.get("proj_size", 16) * (2 if more.get("bidirectional") else 1))
        self.head = nn.Linear(self.norm.num_features, 4)
        self.state = state

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs, state = self.cells(self.first(x).relu())
        last = (state[0] if isinstance(state, tuple) else state)[-1] if self.state else outputs.mean(1)
        return self.head(self.norm(last))


class Attending(nn.Module):
    """torch's own attention in a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = self.norm(x + self.attend(x, x, x, need_weights=False)[0])
        return self.head((x + self.body(x)).mean(1))


class Mobile(nn.Module):
    """Depthwise convolution, squeeze and excitation, residual, a transposed convolution, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.PReLU(16))
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish())
        self.point = nn.Sequential(nn.Conv2d(16, 16, 1), nn.GroupNorm(16, 16))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Linear(8 * 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.up(x + self.point(self.deep(x)) * self.gate(x)).relu()
        return self.head(functional.adaptive_avg_pool2d(x, 2).view(x.size(0), -1))


class Fused(nn.Module):
    """Attention whose queries, keys and values come from one layer, told apart by a reshape that names their sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv, self.line = nn.Linear(32, 96), nn.Linear(32, 32)
        self.body = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        rows, places, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(rows, places, 3, 4, width // 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, places, width)
        x = x + self.line(mixed)
        return self.head((x + self.body(x)).mean(1))


class Gated(nn.Module):
    """A gate: two halves of one layer multiplied, so that of each pair both go."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body, self.head = nn.Linear(6, 16), nn.Linear(16, 64), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.body(self.first(x).relu()).chunk(2, -1)
        return self.head(value * gate.sigmoid())


class Weighing(nn.Module):
    """A recurrent layer whose steps are weighed by attention: one number for all of a step's units."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(6, 16, bidirectional=True, batch_first=True)
        self.weigh, self.head = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.cells(x)
        return self.head((states * torch.softmax(self.weigh(states), 1)).sum(1))


class Padded(nn.Module):
    """torch's own encoder as it is made by default, with rows that are padded."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(ids), src_key_padding_mask=ids == 0)[:, 0])


class Several(nn.Module):
    """Two outputs of one trunk, and what they come of."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.one, self.other = nn.Linear(6, 64), nn.Linear(64, 3), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features = self.trunk(x).relu()
        return self.one(features), {"other": self.other(features), "features": features}


class Asking(nn.Module):
    """A recurrent net that asks its layer for sizes, and gives it a first state by name."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(8, 16, 2, batch_first=True)
        self.body, self.head = nn.Linear(16, 32), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cells.flatten_parameters()
        first = x.new_zeros(self.cells.num_layers, len(x), self.cells.hidden_size)
        return self.head(self.body(self.cells(x, hx=first)[0][:, -1]).relu())


def of_transformers(kind: str, **more: Any) -> nn.Module:
    """Return a small classifier of transformers: its configuration and model by their common name."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=50, num_labels=3, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0, **more
    )
    return getattr(transformers, f"{kind}ForSequenceClassification")(config)


def tokens(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    ids = RNG.integers(1, 50, (rows, 7))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mlp": (models.mlp, (normal(32, 64),)),
    "cnn": (models.Cnn, (normal(32, 1, 8, 8),)),
    "lstm": (models.Lstm, (normal(32, 5, 8),)),
    "transformer": (models.TextEncoder, text(32)),
    "two inputs": (models.TwoInputs, (normal(32, 6), RNG.integers(0, 5, 32))),
}
NARROW: dict[str, tuple[Callable[[], nn.Module], Any, set[str]]] = {
    **{name: (make, inputs, set()) for name, (make, inputs) in CASES.items()},
    "mobile": (Mobile, (normal(3, 3, 8, 8),), {"stem.0", "up"}),
    "joined": (Joined, (normal(3, 3, 8, 8), normal(3, 5)), {"head.0"}),
    "attention": (Attending, (normal(3, 7, 6),), {"body.0"}),
    "lstm state": (lambda: Recurrent(nn.LSTM, state=True), (normal(3, 5, 8),), {"cells", "first"}),
    "gru deep": (lambda: Recurrent(nn.GRU, num_layers=2), (normal(3, 5, 8),), {"cells", "first"}),
    "lstm both ways": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), (normal(3, 5, 8),), {"cells"}),
    "queries, keys and values from one layer": (Fused, (normal(3, 7, 6),), {"body.1"}),
    "a gate": (Gated, (normal(3, 6),), {"first", "body"}),
    "attention over steps": (Weighing, (normal(3, 5, 6),), {"cells"}),
    "transposed linear layers": (lambda: of_transformers("GPT2"), tokens(3), {"transformer.h.0.mlp.c_fc"}),
    "rotary positions": (
        lambda: of_transformers("Llama", intermediate_size=32, num_key_value_heads=2),
        tokens(3),
        {"model.layers.0.mlp.gate_proj"},
    ),
    "positions in the attention": (
        lambda: of_transformers(
            "DebertaV2", intermediate_size=32, relative_attention=True, pos_att_type=["c2p", "p2c"]
        ),
        tokens(3),
        {"deberta.encoder.layer.0.attention.self.query_proj", "deberta.encoder.layer.0.intermediate.dense"},
    ),
    "padded rows": (Padded, (np.array([[3, 4, 5, 0, 0], [6, 7, 8, 9, 0]]),), {"encoder.layers.0.linear1"}),
    "several outputs": (Several, (normal(3, 6),), {"trunk"}),
    "a layer that is asked": (Asking, (normal(3, 5, 8),), {"cells", "body"}),
    "weight norm by hooks": (
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 16)), nn.ReLU(), nn.Linear(16, 3)),
        (normal(3, 6),),
        {"0"},
    ),
    "a state that is projected": (
        lambda: Recurrent(nn.LSTM, proj_size=8),
        (normal(3, 5, 8),),
        {"first"},
    ),
    "rnn": (lambda: Recurrent(nn.RNN, state=True, nonlinearity="relu"), (normal(3, 5, 8),), {"cells"}),
}


def made(case: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    make, inputs = CASES[case]
    return make().eval(), inputs


def one_row(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {name: value[:1] for name, value in inputs.items()}
    return tuple(value[:1] for value in inputs)


def shaken(model: nn.Module) -> nn.Module:
    """Give every weight and statistic a value of its own, so that no wrong slice goes unseen."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
        for name, buffer in model.named_buffers():
            if buffer.dtype.is_floating_point:
                buffer.copy_(torch.rand_like(buffer) + 0.2 if "var" in name else torch.randn_like(buffer) * 0.3)
    return model.eval()


def ranking(model: nn.Module, importance: str = "magnitude", data: Any = None, loss: Any = None) -> Ranking:
    data = ((np.zeros((4, 1), np.float32)), np.zeros(4)) if data is None else data
    return Ranking(importance, LOWERING, _Context(Split(data, "train"), loss))  # type: ignore[arg-type]


@dataclasses.dataclass
class _Context:
    """As much of a context as a ranking reads."""

    train: Any
    loss: Any
    workload: Any = None

    def __post_init__(self) -> None:
        self.workload = self

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(0)


def narrower(model: nn.Module, fraction: float, example: Any, **more: Any) -> tuple[nn.Module, list[str]]:
    units = Units(TracedModule(model, example), ranking(model), **more)
    choice = units.choose(units.model, dict.fromkeys(units.sizes, fraction))
    return units.finished(units.model, choice), units.notes
