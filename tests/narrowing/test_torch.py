"""Units taken out of a torch model: what is left computes what the whole does without them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.batches import Batch
from nbopt.errors import ModelError
from nbopt.frameworks._torch_module import call, tensors
from nbopt.frameworks.torch import FRAMEWORK
from nbopt.narrowing._torch import LOWERING
from nbopt.narrowing._torch.attention import SlimAttention, with_slim_attention
from nbopt.narrowing._torch.weights import prunable_weights, tables
from nbopt.narrowing._torch.widths import TracedModule
from nbopt.narrowing.widths import unit_masks
from tests import models
from tests.narrowing.torch_models import CASES, NARROW, Recurrent, Several, made, narrower, normal, one_row, shaken


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


def test_embeddings_biases_and_norms_are_left_alone_and_tied_weights_taken_once() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(20, 8), "out": nn.Linear(8, 20, bias=False), "norm": nn.LayerNorm(8)})
    assert set(prunable_weights(model)) == {"out.weight"}
    assert tables(model) == ["embed.weight"]
    model["out"].weight = model["embed"].weight  # type: ignore[assignment]
    assert prunable_weights(model) == {}
    assert tables(nn.ModuleDict({"out": model["out"], "embed": model["embed"]})) == ["out.weight"]
    twice = nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})
    twice["b"].weight = twice["a"].weight  # type: ignore[assignment]
    assert set(prunable_weights(twice)) == {"a.weight"}


def test_what_no_row_is_multiplied_with_is_left_alone() -> None:
    model = nn.Module()
    model.scale, model.pos_embedding = nn.Parameter(torch.rand(8, 1, 1)), nn.Parameter(torch.rand(1, 4, 8))
    model.relative_bias_table, model.mix = nn.Parameter(torch.rand(9, 2)), nn.Parameter(torch.rand(8, 8))
    model.norm, model.head = nn.LayerNorm((4, 8)), nn.Linear(8, 1)
    model.old, model.new = nn.utils.weight_norm(nn.Linear(8, 8)), nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    assert set(prunable_weights(model)) == {
        "mix",
        "head.weight",
        "old.weight_v",
        "new.parametrizations.weight.original1",
    }


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


def test_whether_zeros_are_worth_a_sparse_kernel_is_measured() -> None:
    model = nn.Sequential(nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512))
    assert LOWERING.sparse_word(model) == ""
    with torch.no_grad():
        model[2].weight[torch.rand(512, 512) < 0.5] = 0.0
    told = LOWERING.sparse_word(model)
    assert "torch.sparse 2 (50% zeros)" in told
    if "may be faster or slower" in told:  # the machine was too busy to tell, and no figure is told
        assert told.endswith("(50% zeros) may be faster or slower: inconclusive here, so it stays dense")
        return
    figures = re.findall(r"[\d.]+|inf", told.split("would be ")[1].replace("∞", "inf"))[:3]
    ratio, low, high = map(float, figures)
    assert low <= ratio <= high
    assert ("faster in eager torch alone" in told) <= (low > 1)
    assert ("not faster here" in told) <= (high < 1.5)
    assert LOWERING.sparse_word(nn.Conv2d(1, 1, 1)) == ""


def test_outputs_keep_their_form_and_features_that_are_given_out_too_may_shrink() -> None:
    smaller, _ = narrower(Several().eval(), 0.5, (normal(1, 6),))
    output, beside = smaller(torch.ones(2, 6))
    assert (output.shape, beside["other"].shape, beside["features"].shape) == ((2, 3), (2, 4), (2, 32))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_recurrent_layers_of_every_precision_are_narrowed(dtype: torch.dtype) -> None:
    smaller, _ = narrower(Recurrent(nn.LSTM).to(dtype).eval(), 0.5, (normal(1, 5, 8),))
    assert (smaller.cells.hidden_size, smaller.cells.weight_hh_l0.dtype) == (8, dtype)


def test_a_hook_of_a_recurrent_layer_stays() -> None:
    model = Recurrent(nn.LSTM).eval()
    model.cells.register_forward_pre_hook(lambda _, args: (args[0] * 0,))
    smaller, _ = narrower(model, 0.5, (normal(1, 5, 8),))
    x = torch.randn(3, 5, 8)
    assert torch.equal(smaller(x), smaller(x + 1))


def test_masks_of_torchs_own_pruning_are_in_the_weights_of_the_narrower_model() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    nn.utils.prune.l1_unstructured(model[0], "weight", 0.5)
    smaller, _ = narrower(model, 0.5, (np.zeros((1, 6), np.float32),))
    assert smaller[0].weight.shape == (8, 6)
    assert (smaller[0].weight == 0).any()
    assert hasattr(model[0], "weight_orig")


def test_one_row_may_give_a_number_without_axes() -> None:
    class Squeezed(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).squeeze()

    smaller, _ = narrower(Squeezed(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1)).eval(), 0.5, (normal(1, 6),))
    assert smaller[0].out_features == 16


def test_parametrized_layers_are_narrowed() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 16)), nn.ReLU(), nn.Linear(16, 3)).eval()
    smaller, _ = narrower(model, 0.5, (np.zeros((1, 6), np.float32),))
    assert smaller[0].weight.shape == (8, 6)
    assert model[0].weight.shape == (16, 6)
