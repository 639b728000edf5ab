"""Pruning a torch model: zeros that hold through training, units that are gone, masks that do not stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nbopt.data import Batch, Split
from nbopt.errors import ModelError, OptionError
from nbopt.frameworks import Fitting
from nbopt.frameworks._torch_module import call, tensors
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.technique import Context, Draft
from nbopt.techniques._prune.holding import Holding
from nbopt.techniques._prune.lowering import Ranking
from nbopt.techniques._prune.subjects import Units, Weights
from nbopt.techniques._prune.widths import unit_masks
from nbopt.techniques._prune_torch import LOWERING
from nbopt.techniques._prune_torch.attention import SlimAttention, with_slim_attention
from nbopt.techniques._prune_torch.weights import prunable_weights
from nbopt.techniques._prune_torch.widths import TracedModule
from nbopt.techniques.prune import Prune, magnitude_masks
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

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
        self.norm = nn.BatchNorm1d(16 * (2 if more.get("bidirectional") else 1))
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
    units.masks(units.model, dict.fromkeys(units.sizes, fraction))
    return units.finished(units.model), units.notes


@pytest.mark.parametrize("case", NARROW)
def test_a_narrower_model_equals_the_one_with_zeros(case: str) -> None:
    make, inputs, expected = NARROW[case]
    model = shaken(make())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced = TracedModule(model, one_row(inputs))
    assert expected <= {width.name for width in traced.widths}, traced.notes
    widths = [width for width in traced.widths if not width.normed]
    assert widths
    rng = np.random.default_rng(2)
    going = {width.name: np.sort(rng.permutation(width.size)[: width.size // 2]) for width in widths}
    smaller = traced.remove(traced.model, going)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
    shapes = {name: tuple(p.shape) for name, p in traced.model.named_parameters()}
    silent = FRAMEWORK.clone(traced.model)
    LOWERING.put_zeros(silent, unit_masks(widths, going, shapes), {})
    ours, theirs = FRAMEWORK.predict(smaller, inputs), FRAMEWORK.predict(silent, inputs)
    np.testing.assert_allclose(ours, theirs, atol=2e-4 * max(1.0, np.abs(theirs).max()))
    assert np.abs(ours - FRAMEWORK.predict(model, inputs)).max() > 1e-3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_zeros_hold_through_training_and_masks_do_not_stay(case: str) -> None:
    model, inputs = made(case)
    names = set(model.state_dict())
    weights = {name: value.copy() for name, value in prunable_weights(model).items()}
    holding = Holding(Weights(model, ranking(model)), LOWERING, 0.6)
    assert holding.pace(model, 0.0)
    labels = np.arange(32) % 2
    data = {**inputs, "labels": labels} if isinstance(inputs, dict) else (inputs, labels)
    fitting = Fitting(Split(data, "train"), FRAMEWORK.loss(None, None, "logits")[0], hold=(holding.hold,))
    FRAMEWORK.fit(model, TrainingPlan(epochs=3, learning_rate=1e-2, batch_size=8), fitting)
    finished = holding.finish(model)
    assert set(finished.state_dict()) == names
    parameters = dict(finished.named_parameters())
    moved = False
    for name, mask in magnitude_masks(weights, 0.6).items():
        value = parameters[name].detach().numpy()
        assert (value[~mask] == 0).all(), name
        assert not np.signbit(value[~mask]).any()  # -0.0 would be a second kind of zero in the file
        moved = moved or not np.array_equal(value[mask], weights[name][mask])
    assert moved
    assert not any(module._forward_pre_hooks for module in finished.modules())
    assert FRAMEWORK.predict(FRAMEWORK.clone(finished), inputs).shape[0] == 32


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("schedule", ["iterative", "cubic"])
def test_a_schedule_prunes_step_by_step_and_only_its_target_is_kept(schedule: str, structured: bool) -> None:
    model, inputs = made("cnn")
    rank = ranking(model)
    subject: Any = Units(TracedModule(model, one_row(inputs)), rank) if structured else Weights(model, rank)
    model = subject.model
    target: Any = dict.fromkeys(subject.sizes, 0.5) if structured else 0.5
    holding = Holding(subject, LOWERING, target, schedule, 4)
    zeros: list[float] = []

    def watched(trained: Any, done: float) -> bool:
        ready = holding.pace(trained, done)
        zeros.append(float(np.mean([(value == 0).mean() for value in prunable_weights(trained).values()])))
        return ready

    scores = iter([0.9, 0.9, 0.1, 0.2, 0.3, 0.4, 0.5])
    fitting = Fitting(
        Split((inputs, np.arange(32) % 2), "train"),
        FRAMEWORK.loss(None, None, "logits")[0],
        score=lambda _: next(scores),
        hold=(holding.hold,),
        pace=(watched,),
    )
    record = FRAMEWORK.fit(model, TrainingPlan(epochs=4, batch_size=8), fitting)
    assert zeros == sorted(zeros)
    assert len(set(zeros)) >= 4
    # The states before the target are better on this validation, and are not what was asked for.
    assert record.kept_epoch == 4
    finished = holding.finish(model)
    assert not any(module._forward_pre_hooks for module in finished.modules())
    if structured:
        assert finished.features[0].weight.shape[0] == 8
        np.testing.assert_allclose(FRAMEWORK.predict(finished, inputs), FRAMEWORK.predict(model, inputs), atol=1e-4)


def test_embeddings_biases_and_norms_are_left_alone_and_tied_weights_taken_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(20, 8), "out": nn.Linear(8, 20, bias=False), "norm": nn.LayerNorm(8)})
    assert set(prunable_weights(model)) == {"out.weight"}
    model["out"].weight = model["embed"].weight  # type: ignore[assignment]
    assert prunable_weights(model) == {}
    twice = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    twice["b"].weight = twice["a"].weight  # type: ignore[assignment]
    assert set(prunable_weights(twice)) == {"a.weight"}


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.out = nn.Linear(16, 20, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.body(self.embed(ids)).mean(1))


def test_tied_weights_keep_their_width_stay_tied_and_are_named() -> None:
    model = shaken(Tied())
    smaller, notes = narrower(model, 0.5, (np.zeros((1, 4), np.int64),))
    assert any("tied" in note and "embed" in note for note in notes)
    assert smaller.body[0].weight.shape == (16, 16)
    assert smaller.out.weight is smaller.embed.weight


@pytest.mark.parametrize("case", ["mlp", "cnn", "lstm", "transformer", "two inputs"])
def test_units_are_taken_out_and_the_output_keeps_its_form(case: str) -> None:
    model, inputs = made(case)
    before = sum(p.numel() for p in model.parameters())
    outputs = FRAMEWORK.predict(model, inputs)
    smaller, _ = narrower(model, 0.5, one_row(inputs))
    assert sum(p.numel() for p in smaller.parameters()) < 0.9 * before
    assert FRAMEWORK.predict(smaller, inputs).shape == outputs.shape
    assert all(p.requires_grad and p.grad is None for p in smaller.parameters())
    assert not smaller.training


def test_heads_and_hidden_sizes_go_and_the_stream_stays_unless_it_is_included() -> None:
    model, inputs = made("transformer")
    smaller, notes = narrower(model, 0.5, one_row(inputs))
    layer = smaller.encoder.layers[0]
    assert isinstance(layer.self_attn, SlimAttention)
    assert layer.self_attn.num_heads == 1
    assert layer.linear1.weight.shape == (16, 16)
    assert layer.self_attn.q_proj.weight.shape == (8, 16)
    assert any("LayerNorm" in note and "--include" in note for note in notes)
    whole, notes = narrower(model, 0.5, one_row(inputs), include=("*",))
    assert whole.embed.weight.shape == (50, 8)
    assert not any("LayerNorm" in note for note in notes)
    assert FRAMEWORK.predict(whole, inputs).shape == (32, 3)


def test_frozen_parameters_stay_frozen() -> None:
    model, inputs = made("cnn")
    for parameter in model.features.parameters():  # type: ignore[union-attr]
        parameter.requires_grad_(False)
    smaller, _ = narrower(model, 0.5, (inputs[0][:1],))
    flags = {name: p.requires_grad for name, p in smaller.named_parameters()}
    assert not any(flag for name, flag in flags.items() if name.startswith("features"))
    assert all(flag for name, flag in flags.items() if name.startswith("head"))


def test_a_state_that_can_not_be_followed_keeps_its_size() -> None:
    class Ends(Recurrent):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, (hidden, _) = self.cells(self.first(x).relu())
            return self.head(self.norm(torch.cat([hidden[-2], hidden[-1]], 1)))

    model = shaken(Ends(nn.LSTM, bidirectional=True))
    inputs = (normal(3, 5, 8),)
    smaller, notes = narrower(model, 0.5, one_row(inputs))
    assert smaller.cells.hidden_size == 16
    assert any("cells" in note for note in notes)
    assert FRAMEWORK.predict(smaller, inputs).shape == (3, 4)


def test_a_net_of_one_layer_has_no_channels_to_give() -> None:
    with pytest.raises(ModelError, match="every layer makes the output"):
        narrower(nn.Linear(6, 3).eval(), 0.5, (np.ones((1, 6), np.float32),))


def test_a_fixed_number_in_a_reshape_keeps_its_layer_and_says_what_to_do() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
            self.head = nn.Linear(1024, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.second(self.first(x).relu()).relu().view(-1, 1024))

    smaller, notes = narrower(Fixed().eval(), 0.5, (normal(1, 1, 8, 8),))
    assert smaller.first.out_channels == 4
    assert smaller.second.out_channels == 16
    assert any("second" in note and "flatten(1)" in note for note in notes)


def test_the_least_important_units_go() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.ones(4, 4) * torch.tensor([1.0, 0.01, 2.0, 0.02])[:, None])
        model[2].weight.fill_(1.0)
    smaller, _ = narrower(model, 0.5, (np.zeros((1, 4), np.float32),))
    np.testing.assert_allclose(smaller[0].weight[:, 0].detach(), [1.0, 2.0])


def test_gradients_find_what_magnitude_does_not() -> None:
    # A unit of large weights on an input that is always zero does nothing for the loss.
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, -1.0, 0.0, 0.0]]))
        model[1].weight.fill_(1.0)
        model[1].weight[0] = -1.0
    x = normal(64, 4)
    x[:, 2:] = 0
    y = (x[:, 0] > x[:, 1]).astype(np.int64)
    scores = LOWERING.taylor(model, FRAMEWORK.loss(None, None, "logits")[0], iter([Batch((x,), y)]))
    assert scores["0.weight"][0].sum() == 0
    assert scores["0.weight"][1, :2].min() > 0
    assert LOWERING.magnitudes(model)["0.weight"][0].sum() > 100
    assert not any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("case", CASES)
def test_gradient_times_weight_is_what_autograd_says(case: str) -> None:
    model, inputs = made(case)
    labels = np.arange(32) % 2
    loss = FRAMEWORK.loss(None, None, "logits")[0]
    scores = LOWERING.taylor(model, loss, iter([Batch(inputs, labels)]))
    loss(call(model, tensors(model, inputs)), torch.from_numpy(labels), None).backward()
    for name, parameter in model.named_parameters():
        expected = np.zeros(parameter.shape) if parameter.grad is None else (parameter.grad * parameter).detach() ** 2
        np.testing.assert_allclose(scores[name], expected, rtol=1e-3, atol=1e-9)


def test_batchnorm_statistics_are_those_of_the_rows_and_dropout_has_no_part_in_them() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.9), nn.BatchNorm1d(6), nn.Linear(6, 2)).eval()
    x = normal(200, 4) * 3 + 1
    assert LOWERING.recalibrate(model, iter([Batch((x[:100],)), Batch((x[100:],))])) == 1
    hidden = model[0](torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model[2].running_mean, hidden.mean(0), atol=1e-4)
    np.testing.assert_allclose(model[2].running_var, hidden.var(0), rtol=0.1)
    assert model[2].momentum == 0.1
    assert not any(module.training for module in model.modules())
    assert LOWERING.recalibrate(models.mlp(), iter([Batch((normal(4, 64),))])) == 0


def test_slim_attention_computes_what_torchs_own_does() -> None:
    for more in ({"batch_first": True}, {"bias": False}, {"kdim": 5, "vdim": 7, "batch_first": True}):
        torch.manual_seed(0)
        own = nn.MultiheadAttention(8, 2, **more).eval()  # type: ignore[arg-type]
        slim = SlimAttention(own)
        query = torch.randn(3, 4, 8)
        key, value = torch.randn(3, 4, own.kdim), torch.randn(3, 4, own.vdim)
        rows, keys = (3, 4) if own.batch_first else (4, 3)
        padding = torch.zeros(rows, keys, dtype=torch.bool)
        padding[0, -1] = True
        for options in ({}, {"key_padding_mask": padding}, {"need_weights": False}):
            ours, weights = slim(query, key, value, **options)  # type: ignore[arg-type]
            theirs, expected = own(query, key, value, **options)  # type: ignore[arg-type]
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
            assert (weights is None) == (expected is None)
            if weights is not None:
                torch.testing.assert_close(weights, expected, atol=1e-5, rtol=1e-4)


def test_a_decoder_keeps_what_it_computes_with_slim_attention() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True)
    decoder = nn.TransformerDecoder(layer, 2).eval()
    target, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    expected = decoder(target, memory, tgt_mask=mask, tgt_is_causal=True)
    slim = with_slim_attention(decoder)
    torch.testing.assert_close(slim(target, memory, tgt_mask=mask, tgt_is_causal=True), expected, atol=1e-5, rtol=1e-4)


def work_of(model: nn.Module, digits: Digits, **more: Any) -> Workload:
    images = digits.x.reshape(-1, 1, 8, 8)
    data = (images[:300], digits.y[:300])
    return Workload(model, train=more.get("train", data), valid=(images[300:500], digits.y[300:500]))


@pytest.mark.parametrize("structured", [False, True])
def test_fine_tuning_is_the_drafts_one_training(structured: bool, trained_cnn: nn.Module, digits: Digits) -> None:
    work = work_of(trained_cnn, digits)
    draft = Prune(structured=structured, epochs=2, learning_rate=3e-4).apply(Draft(work.model), Context(work))
    assert (draft.plan.epochs, draft.plan.learning_rate) == (2, 3e-4)
    assert Prune(epochs=0).apply(Draft(work.model), Context(work)).plan.epochs == 0
    assert bool(draft.hold) != structured
    assert draft.model is not trained_cnn
    if structured:
        assert any("BatchNorm" in note for note in draft.notes)


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "batchnorm"])
def test_every_importance_leaves_a_model_that_works(importance: str, trained_cnn: nn.Module, digits: Digits) -> None:
    work = work_of(trained_cnn, digits)
    step = Prune(sparsity=0.3, structured=True, importance=importance, epochs=0)
    draft = step.apply(Draft(work.model), Context(work))
    assert FRAMEWORK.count(draft.model)[0] < 0.7 * FRAMEWORK.count(trained_cnn)[0]
    assert Context(work).score(draft.model) > 0.3


def test_layers_are_named_in_and_out(trained_cnn: nn.Module, digits: Digits) -> None:
    work = work_of(trained_cnn, digits)

    def shape(**more: Any) -> tuple[int, int]:
        step = Prune(structured=True, epochs=0, **more)
        model = step.apply(Draft(work.model), Context(work)).model
        return model.features[0].out_channels, model.features[4].out_channels

    assert shape(include=("features.0",)) == (8, 32)
    assert shape(exclude=("features.0",)) == (16, 16)
    assert shape(include=("features",), exclude=("*.4",)) == (8, 32)
    for flag in ("include", "exclude"):
        with pytest.raises(OptionError, match=r"features\.4"):
            Prune(**{flag: ("featurs.4",)}).apply(Draft(work.model), Context(work))
    zeros = Prune(include=("head",), epochs=0).apply(Draft(work.model), Context(work))
    model = zeros.finish[-1](zeros.model)
    assert (model.head.weight == 0).float().mean() == 0.5
    assert (model.features[0].weight != 0).all()


def test_two_of_four_stay(trained_cnn: nn.Module, digits: Digits) -> None:
    work = work_of(trained_cnn, digits)
    draft = Prune(pattern="2:4", epochs=0).apply(Draft(work.model), Context(work))
    weight = draft.model.features[4].weight  # (32, 16, 3, 3): the inputs lie along the second axis
    blocks = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
    assert set(blocks.tolist()) == {2}
    assert any("features.0" in note for note in draft.notes)  # of one input channel


@pytest.mark.parametrize(
    "options",
    [
        {"pattern": "2:4", "structured": True},
        {"pattern": "2:4", "sparsity": 0.7},
        {"pattern": "4:2"},
        {"pattern": "two of four"},
        {"importance": "batchnorm"},
        {"rounds": 5},
        {"schedule": "cubic", "epochs": 0},
    ],
)
def test_options_that_do_not_go_together_are_told(options: Any, trained_cnn: nn.Module, digits: Digits) -> None:
    work = work_of(trained_cnn, digits)
    with pytest.raises(OptionError) as caught:
        Prune(**options).apply(Draft(work.model), Context(work))
    assert all((caught.value.expected, caught.value.came))


def test_whether_zeros_are_worth_a_sparse_kernel_is_measured() -> None:
    model = nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512))
    assert LOWERING.sparse_word(model) == ""
    with torch.no_grad():
        model[2].weight[torch.rand(512, 512) < 0.5] = 0.0
    told = LOWERING.sparse_word(model)
    assert "torch.sparse 2 (50% zeros)" in told
    assert ("not faster here" in told) == (float(told.split("would be ")[1].split("x")[0]) < 1.1)
    assert LOWERING.sparse_word(nn.Conv2d(1, 1, 1)) == ""


def test_parametrized_layers_are_narrowed() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 16)), nn.ReLU(), nn.Linear(16, 3)).eval()
    smaller, _ = narrower(model, 0.5, (np.zeros((1, 6), np.float32),))
    assert smaller[0].weight.shape == (8, 6)
    assert model[0].weight.shape == (16, 6)
