"""Attention in torch: a form of it that can lose heads, and which layers of a module are its projections."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

HEADS = ("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead", "heads")
"""Attributes in which modules keep their number of heads."""
ALL_HEADS = ("all_head_size", "inner_dim")
"""Attributes in which they keep heads times the width of one."""


class SlimAttention(nn.Module):
    """Compute what `nn.MultiheadAttention` does, with projections of their own.

    torch's own fixes the width of its heads to the embedding's width over their number, so that no head can go.

    Args:
        source: Its weights are copied.
    """

    def __init__(self, source: nn.MultiheadAttention) -> None:
        super().__init__()
        width, heads = source.embed_dim, source.num_heads
        self.num_heads = heads
        self.head_dim = width // heads
        self.batch_first = source.batch_first
        self.dropout = source.dropout
        bias = source.in_proj_bias is not None
        parts = (
            source.in_proj_weight.detach().chunk(3)
            if source._qkv_same_embed_dim
            else (source.q_proj_weight, source.k_proj_weight, source.v_proj_weight)
        )
        biases = source.in_proj_bias.detach().chunk(3) if bias else (None, None, None)
        trains = any(p.requires_grad for p in source.parameters())
        for name, weight, shift in zip(("q_proj", "k_proj", "v_proj"), parts, biases, strict=True):
            setattr(self, name, _linear(weight, shift, trains))
        self.out_proj = _linear(source.out_proj.weight, source.out_proj.bias, trains)
        # What nn.TransformerEncoderLayer asks its attention before it takes a kernel of its own, which would read
        # weights that are not here: one of these answers keeps it from that.
        self._qkv_same_embed_dim = False
        self.in_proj_bias = None
        self.embed_dim = width
        self.train(source.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend, as `nn.MultiheadAttention.forward` does."""
        single = query.dim() == 2
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (self._apart(line(x)) for line, x in self._lines(query, key, value))
        mask = self._mask(q, k, key_padding_mask, attn_mask, is_causal=is_causal and attn_mask is None)
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            mixed = functional.dropout(weights, drop) @ v
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if single else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if single:
            return output[0], weights
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _lines(self, *inputs: torch.Tensor) -> list[tuple[Any, torch.Tensor]]:
        return list(zip((self.q_proj, self.k_proj, self.v_proj), inputs, strict=True))

    def _apart(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], x.shape[1], -1, self.head_dim).transpose(1, 2)

    def _mask(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        padding: torch.Tensor | None,
        mask: torch.Tensor | None,
        *,
        is_causal: bool,
    ) -> torch.Tensor | None:
        """Return what is added to the scores, in a shape that goes with (rows, heads, queries, keys)."""
        if is_causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
        total = None
        if mask is not None:
            total = _added(mask, q)
            # A mask for each head was made for all of the heads there were: none can go then, see `convertible`.
            total = total.view(q.shape[0], -1, *total.shape[-2:]) if total.dim() == 3 else total
        if padding is not None:
            keys = _added(padding, q)[:, None, None, :]
            total = keys if total is None else total + keys
        return total


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if mask.dtype != torch.bool:
        return mask.to(like.dtype)
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, float("-inf"))


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, trains: bool) -> nn.Linear:
    line = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        line.weight.copy_(weight)
        if bias is not None:
            line.bias.copy_(bias)
    return line.requires_grad_(trains)


def convertible(layer: nn.MultiheadAttention) -> bool:
    """Tell whether the layer has nothing that `SlimAttention` does not do."""
    return layer.bias_k is None and layer.bias_v is None and not layer.add_zero_attn


def with_slim_attention(model: nn.Module) -> nn.Module:
    """Return the model with each `nn.MultiheadAttention` in the form that can lose heads, in place."""
    for module in list(model.modules()):
        if isinstance(module, nn.TransformerEncoder):
            # Before its kernel for padded rows, too, it reads weights of its first layer's attention.
            module.use_nested_tensor = False
        for name, child in module.named_children():
            if isinstance(child, nn.MultiheadAttention) and convertible(child):
                setattr(module, name, SlimAttention(child))
    return model


def with_lines(model: nn.Module) -> nn.Module:
    """Return the model with each `Conv1D` of transformers, a transposed linear layer, as `nn.Linear`, in place."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if (type(child).__module__, type(child).__name__) == ("transformers.pytorch_utils", "Conv1D"):
                weight, bias = child.weight, child.bias
                setattr(module, name, _linear(weight.detach().T, bias.detach(), weight.requires_grad))
    return model


def heads_of(module: nn.Module) -> int:
    """Return how many heads a module says that it has, 0 where it does not."""
    return next((value for name in HEADS if isinstance(value := getattr(module, name, None), int) and value > 1), 0)


def set_heads(module: nn.Module, before: int, after: int) -> None:
    """Write a smaller number of heads where the module keeps it."""
    for name in HEADS:
        if getattr(module, name, None) == before:
            setattr(module, name, after)
    for name in ALL_HEADS:
        value = getattr(module, name, None)
        if isinstance(value, int) and value % before == 0:
            setattr(module, name, value // before * after)
