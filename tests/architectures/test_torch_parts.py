"""Kernels that can be cropped and blocks that can go, in torch modules of many kinds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.architectures._torch.parts import blocks_of, cropped, kernels_of, without


class Residual(nn.Module):
    def __init__(self, width: int, stride: int = 1, inside: int = 8) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, inside, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(inside)
        self.two = nn.Conv2d(inside, width, 3, 1, 1)
        self.short = nn.Conv2d(width, width, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Any) -> Any:
        return torch.relu(self.two(torch.relu(self.norm(self.one(x)))) + self.short(x))


def network() -> nn.Module:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    stages = nn.Sequential(Residual(8), Residual(8, 2), Residual(8))
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), plain, stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


X = np.random.default_rng(0).normal(size=(2, 1, 12, 12)).astype(np.float32)


def test_residual_blocks_that_keep_their_shape_are_found_and_no_others() -> None:
    model = network()
    assert [block.name for block in blocks_of(model, (X,))] == ["3.0", "3.2"]
    assert "3.0.one" in blocks_of(model, (X,))[0].inside


def test_without_a_block_the_model_gives_what_the_others_do() -> None:
    model = network()
    smaller = without(copy.deepcopy(model), frozenset({"3.0"}))
    x = torch.from_numpy(X)
    parts = [model[0], model[1], model[2], model[3][1], model[3][2], model[4], model[5], model[6]]
    assert torch.equal(smaller(x), nn.Sequential(*parts)(x))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: Any) -> Any:
        return self.head(self.body(self.embed(ids)).mean(1))


def test_layers_of_a_transformer_are_blocks() -> None:
    ids, model = np.arange(10).reshape(2, 5), Encoder().eval()
    layers = list(model.body.layers)
    # Of the first one torch's own TransformerEncoder reads attributes: without it no candidate would run.
    assert [block.name for block in blocks_of(model, (ids,))] == ["body.layers.1"]
    assert list(model.body.layers) == layers
    without(model, frozenset(["body.layers.1"]))(torch.from_numpy(ids))


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(2, 3, 5, padding=2), 3),
        (nn.Conv2d(2, 3, 5, stride=2, padding=2), 1),
        (nn.Conv2d(2, 3, 3, padding="same", dilation=2), 1),
        (nn.Conv2d(2, 2, 5, padding=4, dilation=2, groups=2), 3),
        (nn.Conv2d(2, 3, 7, padding=2), 3),
    ],
)
def test_a_cropped_kernel_computes_what_a_rim_of_zeros_does(layer: Any, size: int) -> None:
    model = nn.Sequential(layer)
    (kernel,) = kernels_of(model)
    assert kernel.least <= size
    silent, rim = copy.deepcopy(model), (kernel.size - size) // 2
    with torch.no_grad():
        inner = torch.zeros(kernel.size, kernel.size)
        inner[rim : kernel.size - rim, rim : kernel.size - rim] = 1
        silent[0].weight.mul_(inner)
    x = torch.randn(2, 2, 13, 13)
    assert torch.allclose(cropped(copy.deepcopy(model), {"0": size})(x), silent(x), atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 4, padding=2),
        nn.Conv2d(2, 3, 1),
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, 3, padding="valid"),
        nn.Conv2d(2, 3, (3, 5), padding=(1, 2)),
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(2, 3, 3, padding=1),
    ],
)
def test_other_kernels_stay(layer: nn.Module) -> None:
    assert kernels_of(nn.Sequential(layer)) == []
