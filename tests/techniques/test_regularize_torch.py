"""Dropout and norms in torch modules of every shape: put in, trained, copied, exported and taken out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.batches import Batch
from nbopt.data import Split
from nbopt.frameworks import Fitting, Signature
from nbopt.frameworks._torch_losses import loss_for
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.frozen import Leaf
from nbopt.techniques._regularize.places import Site, dropout_sites, norm_places
from nbopt.techniques._regularize_torch import LOWERING
from nbopt.training import TrainingPlan
from tests.models import Cnn, Lstm, TextEncoder, TwoInputs, mlp

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(16, 1, 8, 8)).astype(np.float32)
TOKENS = {"input_ids": RNG.integers(0, 50, (8, 6)), "attention_mask": np.ones((8, 6), np.int64)}


class Stacked(nn.Module):
    """Two LSTMs, the first of two layers, and packed rows in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.second = nn.GRU(12, 10, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.first(x)
        packed = nn.utils.rnn.pack_padded_sequence(states, torch.full((len(x),), x.shape[1]), batch_first=True)
        _, last = self.second(packed)
        return self.head(last[-1])


class Residual(nn.Module):
    """A convolution whose output is used before its norm too, transposed ones, and one weight read by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False)
        self.up_norm = nn.BatchNorm2d(6)
        self.flat = nn.Linear(6, 5)
        self.flat_norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = torch.relu(self.norm(y)) + y
        y = torch.relu(self.up_norm(self.up(y))).mean((2, 3))
        return self.head(torch.relu(self.flat_norm(self.flat(y)))) + 0 * self.head.weight.sum()


def names(model: nn.Module, example: Any, rate: float = 0.4) -> list[tuple[str, str]]:
    return [(site.name, site.how) for site in dropout_sites(LOWERING.places(model, example), rate)]


@pytest.mark.parametrize(
    ("model", "example", "wanted"),
    [
        (mlp(), (RNG.normal(size=(1, 64)).astype(np.float32),), [("2", "before")]),
        (Cnn(), (IMAGES[:1],), [("features.4", "channels"), ("head", "before")]),
        (Lstm(), (RNG.normal(size=(1, 5, 8)).astype(np.float32),), [("head", "before")]),
        (
            Stacked(),
            (RNG.normal(size=(1, 5, 8)).astype(np.float32),),
            [("first", "between"), ("second", "before"), ("head", "before")],
        ),
        (
            TwoInputs(),
            (RNG.normal(size=(1, 6)).astype(np.float32), np.array([1])),
            [("head", "before")],
        ),
    ],
    ids=["mlp", "cnn", "lstm", "stacked", "two inputs"],
)
def test_places(model: nn.Module, example: Any, wanted: list[tuple[str, str]]) -> None:
    before = [p.requires_grad for p in model.parameters()]
    assert names(model, example) == wanted
    assert [p.requires_grad for p in model.parameters()] == before


def test_a_transformers_own_dropout_changes_and_its_head_gets_some() -> None:
    model = TextEncoder()
    found = names(model, {name: value[:1] for name, value in TOKENS.items()})
    assert ("encoder.layers.0.self_attn", "existing") in found
    assert ("encoder.layers.0.dropout1", "existing") in found
    assert found[-1] == ("head", "before")


@pytest.mark.parametrize("case", ["cnn", "stacked", "text"])
def test_dropout_acts_in_training_alone_and_goes_without_a_trace(case: str) -> None:
    torch.manual_seed(0)
    model, inputs = {
        "cnn": lambda: (Cnn(), (IMAGES,)),
        "stacked": lambda: (Stacked(), (RNG.normal(size=(8, 5, 8)).astype(np.float32),)),
        "text": lambda: (TextEncoder(), TOKENS),
    }[case]()
    model.eval()
    example = {k: v[:1] for k, v in inputs.items()} if isinstance(inputs, dict) else tuple(v[:1] for v in inputs)
    plain = FRAMEWORK.predict(model, inputs)
    keys = list(model.state_dict())
    made = LOWERING.with_dropout(FRAMEWORK.clone(model), dropout_sites(LOWERING.places(model, example), 0.5))
    twin = FRAMEWORK.clone(made)  # a copy keeps it
    np.testing.assert_array_equal(FRAMEWORK.predict(twin, inputs), plain)
    assert list(twin.state_dict()) == keys
    twin.train()
    arguments = {k: torch.from_numpy(v) for k, v in inputs.items()} if isinstance(inputs, dict) else None
    with torch.no_grad():
        call = (lambda: twin(**arguments).logits) if arguments else (lambda: twin(*map(torch.from_numpy, inputs)))
        assert not torch.equal(call(), call())
    out, dropped, _ = LOWERING.deployed(FRAMEWORK.clone(made), example)
    assert dropped == len(dropout_sites(LOWERING.places(model, example), 0.5))
    np.testing.assert_allclose(FRAMEWORK.predict(out, inputs), plain, atol=1e-4)
    assert not any(isinstance(m, nn.Dropout) or m._forward_pre_hooks for m in out.modules())
    out.train()
    if case != "cnn":  # whose BatchNorm is folded
        with torch.no_grad():
            assert torch.equal(
                *[(out(**arguments).logits if arguments else out(*map(torch.from_numpy, inputs))) for _ in "ab"]
            )


def test_whole_channels_are_dropped() -> None:
    model = Cnn()
    LOWERING.with_dropout(model, [Site("features.4", "channels", 0.5)])
    seen: list[torch.Tensor] = []
    model.features[4].register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model.train()
    model(torch.from_numpy(IMAGES))
    zero = (seen[0] == 0).flatten(2)
    dead = zero.all(-1)
    assert 0.3 < dead.float().mean() < 0.7
    assert (seen[0][~dead].flatten(1).abs().sum(1) > 0).all()


def test_an_export_has_no_dropout_in_it(tmp_path: Any) -> None:
    import onnx

    model = LOWERING.with_dropout(Cnn().eval(), [Site("head", "before", 0.5)])
    signature = Signature((Leaf("x", "float32", (None, 1, 8, 8)),), False, (IMAGES[:1],))
    for target in (model, LOWERING.deployed(FRAMEWORK.clone(model), (IMAGES[:1],))[0]):
        FRAMEWORK.export(target, signature, tmp_path / "model.onnx", "onnx")
        kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
        assert not kinds & {"Dropout", "RandomUniformLike"}


@pytest.mark.parametrize("case", ["mlp", "tokens", "conv", "weight norm"])
def test_batchnorm_keeps_the_function_trains_and_folds(case: str) -> None:
    torch.manual_seed(0)
    shape = {"mlp": (64,), "tokens": (5, 8), "conv": (1, 8, 8), "weight norm": (6, 8)}[case]
    weight_norm = nn.utils.parametrizations.weight_norm
    model = {
        "mlp": mlp,
        "tokens": lambda: nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 10)),
        "conv": lambda: nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
        ),
        "weight norm": lambda: nn.Sequential(
            weight_norm(nn.Conv1d(6, 8, 3)), nn.ReLU(), nn.Conv1d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10)
        ),
    }[case]().eval()
    x = RNG.normal(2, 3, size=(64, *shape)).astype(np.float32)
    plain = FRAMEWORK.predict(model, (x,))
    places = norm_places(LOWERING.places(model, (x[:1],)))
    made = LOWERING.with_norms(FRAMEWORK.clone(model), "batchnorm", places, [Batch((x[:32],)), Batch((x[32:],))])
    np.testing.assert_allclose(FRAMEWORK.predict(made, (x,)), plain, rtol=1e-3, atol=1e-4)
    y = RNG.integers(0, 10, (64, 5) if case == "tokens" else 64)
    fitting = Fitting(Split((x, y), "train"), loss_for(None, "logits")[0])
    record = FRAMEWORK.fit(made, TrainingPlan(epochs=2, batch_size=63), fitting)  # a last batch of one row
    assert np.isfinite(record.losses).all()
    trained = FRAMEWORK.predict(made, (x,))
    folded, _, count = LOWERING.deployed(FRAMEWORK.clone(made), (x[:1],))
    assert count == len(places)
    np.testing.assert_allclose(FRAMEWORK.predict(folded, (x,)), trained, rtol=1e-3, atol=1e-4)
    named = [name.replace("parametrizations.weight.original1", "weight") for name in model.state_dict()]
    assert sorted(folded.state_dict()) == sorted(name for name in named if "original0" not in name)
    np.testing.assert_array_equal(FRAMEWORK.predict(model, (x,)), plain)  # a copy shares its class with the user's own


def test_layernorm_changes_what_a_trained_model_computes() -> None:
    model = mlp()
    x = RNG.normal(size=(64, 64)).astype(np.float32)
    places = norm_places(LOWERING.places(model, (x[:1],)))
    made = LOWERING.with_norms(FRAMEWORK.clone(model), "layernorm", places, [Batch((x,))])
    assert np.abs(FRAMEWORK.predict(made, (x,)) - FRAMEWORK.predict(model, (x,))).max() > 0.01


def test_a_users_own_batchnorm_folds_where_it_alone_hears_the_layer() -> None:
    torch.manual_seed(0)
    model, x = Residual(), RNG.normal(size=(32, 1, 8, 8)).astype(np.float32)
    model.train()
    for _ in range(5):
        model(torch.from_numpy(x))  # statistics of its own
    model.eval()
    plain = FRAMEWORK.predict(model, (x,))
    del model.norm
    model.norm = nn.Identity()  # what follows is folded; of `conv` more than the norm hears
    plain = FRAMEWORK.predict(model, (x,))
    folded, _, count = LOWERING.deployed(FRAMEWORK.clone(model), (x[:1],))
    assert count == 2
    np.testing.assert_allclose(FRAMEWORK.predict(folded, (x,)), plain, rtol=1e-3, atol=1e-4)


def test_a_fold_that_would_change_outputs_is_not_kept() -> None:
    import nbopt
    from nbopt.draft import Context, Draft
    from nbopt.techniques._regularize.adding import deployed

    torch.manual_seed(0)
    model, x = Residual(), RNG.normal(size=(32, 1, 8, 8)).astype(np.float32)
    model.train()
    model(torch.from_numpy(x))
    model.eval()
    work = nbopt.Workload(model, valid=(x, RNG.integers(0, 3, 32)))
    draft = deployed(Draft(model), Context(work))
    assert draft.model is model
    assert "outputs would change by" in draft.notes[-1]
