"""Training with the rounding in place: the grid is the quantizer's, and what it cost comes back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ModelError, OptionError
from nbopt.frameworks import Fitting
from nbopt.loop import optimize
from nbopt.recipe import Recipe
from nbopt.techniques._quantize import rounding
from nbopt.techniques.quantize import Quantize
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits

FLOATS = st.floats(-100, 100, width=32)


@given(arrays(np.float32, (4, 6), elements=FLOATS), st.sampled_from([63, 127]))
def test_rounded_weights_are_on_the_grid_and_within_half_a_step(weights: np.ndarray, levels: int) -> None:
    scale = rounding.weight_scale(weights, (1,), levels)
    steps = rounding.round_weights(weights, (1,), levels) / scale
    assert np.abs(steps - np.rint(steps)).max() < 1e-3
    assert np.abs(steps).max() <= levels + 1e-3
    assert (np.abs(steps * scale - weights) <= 0.5001 * scale + 1e-6).all()


@given(arrays(np.float32, (9,), elements=FLOATS), FLOATS, FLOATS)
def test_zero_is_exact_and_what_lies_in_the_range_is_within_half_a_step(x: np.ndarray, a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale, zero = rounding.range_of_zero(low, high)
    assert 0 <= zero <= 255
    assert rounding.round_activations(np.zeros(1, np.float32), low, high)[0] == 0
    rounded = rounding.round_activations(x, low, high)
    inside = (x >= low) & (x <= high)
    assert (np.abs(rounded - x)[inside] <= 1.01 * scale + 1e-5).all()


def uneven(model: nn.Sequential, spread: float = 1.6) -> nn.Sequential:
    """Scale channels up and the weights behind them down, which changes no output, as trained depthwise nets are
    scaled (Nagel et al. 2019, https://arxiv.org/abs/1906.04721): one range for all channels has no room for the small.
    """
    generator = torch.Generator().manual_seed(0)
    parts = [part for part in model if isinstance(part, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))]
    with torch.no_grad():
        for norm, following in zip(parts[1::2], parts[2::2], strict=False):
            if isinstance(following, nn.Conv2d):
                factor = torch.exp(spread * torch.randn(norm.weight.numel(), generator=generator))
                norm.weight.mul_(factor)
                norm.bias.mul_(factor)
                shape = (-1, 1, 1, 1) if following.groups > 1 else (1, -1, 1, 1)
                following.weight.div_(factor.view(shape))
    return model


def depthwise() -> nn.Sequential:
    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        deep = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        return [deep, nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs), nn.ReLU()]  # fmt: skip

    stem = [nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *block(16, 24, 1), *block(24, 32, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(32, 10))  # fmt: skip


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_what_rounding_cost_comes_back_by_training_with_it(digits: Digits, runtime: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = lambda part: (part[0].reshape(-1, 1, 8, 8), part[1])  # noqa: E731
    model = uneven(models.train(depthwise(), *images(digits.train), steps=150, rate=1e-2))
    before = copy.deepcopy(model.state_dict())
    work = Workload(model, train=images(digits.train), valid=images(digits.valid), test=images(digits.test))
    after = optimize(work, Quantize(calibration=64), runtimes=runtime, threads=1)
    trained = optimize(
        work, Quantize(method="qat", calibration=64, epochs=25, learning_rate=1e-2), runtimes=runtime, threads=1
    )
    lost, left = (-(comparison[f"quantize/{runtime}"].quality_delta or 0.0) for comparison in (after, trained))
    assert lost > 0.3
    assert left < 0.15 * lost
    run = trained[f"quantize/{runtime}"]
    assert "int8" in run.dtype
    assert run.epochs == 25
    assert len(run.steps) <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in run.model.modules())


def rounded(model: nn.Module, data: Any) -> tuple[nn.Module, Any]:
    work = Workload(model, train=data, valid=data)
    draft = Quantize(method="qat", calibration=20).apply(Draft(model), Context(work))
    return draft.model, draft


def test_torch_rounds_as_numpy_does(digits: Digits) -> None:
    x, y = digits.train[0][:40], digits.train[1][:40]
    model = nn.Sequential(nn.Linear(64, 10)).eval()
    twin, draft = rounded(model, (x, y))
    with torch.no_grad():
        came = twin(torch.from_numpy(x)).numpy()
    weight, bias = (p.detach().numpy() for p in model[0].parameters())
    rows = [row[0] for row in Workload(model, train=(x, y), valid=(x, y)).calibration(20, np.random.default_rng(0))[0]]
    low, high = float(np.min(rows)), float(np.max(rows))
    inputs = rounding.round_activations(x, min(low, 0.0), max(high, 0.0))
    grid = rounding.round_weights(weight, (1,), rounding.weight_levels())
    np.testing.assert_allclose(came, inputs @ grid.T + bias, atol=1e-4)
    assert torch.equal(twin[0].weight, model[0].weight)  # outside of the call they are what trains
    (finish,) = draft.finish
    with torch.no_grad():
        # The weights stay on their grid: what a quantizer calibrates on is what was trained.
        np.testing.assert_allclose(finish(twin)(torch.from_numpy(x)), x @ grid.T + bias, atol=1e-5)
    assert not twin[0]._forward_pre_hooks


class Named(nn.Module):
    """Layers that are called by keywords, with a mask that has infinities, and one that few rows come to."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 4)
        self.rare = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.max()) > 100:
            x = self.rare(x)
        mask = torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)
        return self.head(input=self.attention(query=x, key=x, value=x, attn_mask=mask)[0].mean(1))


def levels_of(layer: nn.Module, model: nn.Module, x: torch.Tensor) -> int:
    """Return of how many different numbers the inputs of a layer are, its rounding in place."""
    came: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda _, args, kwargs: came.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    with torch.no_grad():
        model(x)
    hook.remove()
    return len(came[0].unique())


def test_layers_called_by_keywords_are_rounded_and_masks_are_not() -> None:
    torch.manual_seed(0)
    model = Named().eval()
    x = np.random.default_rng(0).normal(size=(64, 5, 16)).astype(np.float32)
    twin, draft = rounded(model, (x, np.arange(64) % 4))
    inputs = torch.from_numpy(x)
    assert levels_of(model.attention, model, inputs) > 1000
    assert levels_of(twin.attention, twin, inputs) <= 256
    assert levels_of(twin.head, twin, inputs) < levels_of(model.head, model, inputs)
    with torch.no_grad():
        assert float((twin(inputs) - model(inputs)).abs().max()) < 0.05
        # A layer whose range is not known leaves its inputs as they are, and does not make zeros of them.
        far = inputs + 200
        assert float((twin.rare(far) - model.rare(far)).abs().max()) < 0.02 * float(model.rare(far).abs().max())
    assert any("no calibration row came to rare" in note for note in draft.notes)
    twin.train()
    twin(far)
    twin.eval()
    assert levels_of(twin.rare, twin, far) <= 256
    (finish,) = draft.finish
    assert not any(m._forward_pre_hooks or m._forward_pre_hooks_with_kwargs for m in finish(twin).modules())


@pytest.mark.parametrize("how", ["bfloat16", "float16", "autocast"])
def test_half_precisions_are_rounded_too(how: str) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Linear(32, 4)).eval()
    model = model if how == "autocast" else model.to(getattr(torch, how))
    twin, draft = rounded(model, (x, np.arange(400) % 4))
    inputs = torch.from_numpy(x).to(model[0].weight.dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        assert levels_of(twin[0], twin, inputs) <= 256
        assert levels_of(twin[2], twin, inputs) <= 256 < levels_of(model[2], model, inputs)
        twin.train()(inputs).float().sum().backward()
    (finish,) = draft.finish
    finish(twin.eval())
    weight = twin[0].weight.detach().float().numpy()
    exact = 1e-6 if how == "autocast" else 2e-2
    np.testing.assert_allclose(
        rounding.round_weights(weight, (1,), rounding.weight_levels()), weight, rtol=exact, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_weights_that_are_made_of_others_end_on_their_grid(kind: str, digits: Digits) -> None:
    torch.manual_seed(0)
    made = getattr(nn.utils.parametrizations, kind)
    model = nn.Sequential(made(nn.Linear(64, 10)), nn.ReLU(), nn.Linear(10, 10)).eval()
    before = model[0].weight.detach().clone()
    data = (digits.train[0][:40], digits.train[1][:40])
    twin, draft = rounded(model, data)
    assert list(twin.state_dict()) == list(model.state_dict())
    grid = rounding.round_weights(before.numpy(), (1,), rounding.weight_levels())
    np.testing.assert_allclose(twin[0].weight.detach().numpy(), grid, atol=1e-6)
    work = Workload(model, train=data, valid=data)
    work.framework.fit(twin, TrainingPlan(epochs=2, learning_rate=1e-2), Fitting(work.train, work.loss))
    trained = twin.eval()[0].weight.detach().clone()
    assert not torch.allclose(trained, torch.from_numpy(grid))
    (finish,) = draft.finish
    weight = finish(twin)[0].weight.detach()
    torch.testing.assert_close(weight, trained, atol=1e-6, rtol=1e-4)
    on_grid = rounding.round_weights(weight.numpy(), (1,), rounding.weight_levels())
    np.testing.assert_allclose(weight.numpy(), on_grid, atol=1e-6)
    assert torch.equal(model[0].weight, before)


def test_a_channel_that_rounding_made_constant_is_not_blown_up_without_it(digits: Digits) -> None:
    images = digits.train[0][:200].reshape(-1, 1, 8, 8)
    body = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4, bias=False)]
    torch.manual_seed(0)
    model = nn.Sequential(*body, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10)).eval()
    with torch.no_grad():  # so small beside the others that rounding leaves nothing of it
        model[1].weight[0], model[1].bias[0] = 1e-4, 0.0
        model[4].running_var[0] = 1e-8
    data = (images, digits.train[1][:200])
    twin, draft = rounded(model, data)
    work = Workload(model, train=data, valid=data)
    plan = TrainingPlan(epochs=40, learning_rate=1e-7, batch_size=32)  # statistics move, weights hardly do
    work.framework.fit(twin, plan, Fitting(work.train, work.loss))
    assert twin[4].running_var[0] < 1e-4 * 1e-8
    before = work.framework.predict(twin, (images,))
    (finish,) = draft.finish
    after = work.framework.predict(finish(twin), (images,))
    assert twin[4].running_var[0] == pytest.approx(1e-8)
    assert np.abs(after - before).max() < 0.1 * np.abs(before).max()


@given(arrays(np.float64, 5, elements=st.floats(1e-12, 1e6)), arrays(np.float64, 5, elements=st.floats(1e-12, 1e6)))
def test_only_variances_that_are_gone_come_back(after: np.ndarray, before: np.ndarray) -> None:
    gone = after < rounding.CONSTANT * before
    assert (rounding.revived(after, before) == np.where(gone, before, after)).all()


@pytest.mark.parametrize("kind", ["text", "two", "lstm"])
def test_models_by_name_with_several_inputs_and_recurrent_ones_train_with_rounding(kind: str) -> None:
    from tests.runtimes.test_contract import workload

    work = workload("torch", kind)
    work = Workload(work.model, train=work.valid.source, valid=work.valid.source)
    draft = Quantize(method="qat", calibration=5).apply(Draft(work.model), Context(work))
    inputs = next(work.report_rows.batches())
    plain, now = work.framework.predict(work.model, inputs), work.framework.predict(draft.model, inputs)
    error = np.abs(now - plain).max()
    assert 0 < error < 0.25 * np.abs(plain).max() + 0.1
    assert any("recurrent" in note for note in draft.notes) == (kind == "lstm")


def test_what_can_not_be_trained_with_rounding_is_told(digits: Digits) -> None:
    x = np.random.default_rng(0).normal(size=(20, 5, 8)).astype(np.float32)
    cells = nn.LSTM(8, 4, batch_first=True).eval()
    work = Workload(cells, train=(x, x[..., :4]), valid=(x, x[..., :4]), metric="rmse")
    with pytest.raises(ModelError, match="rounding can be trained"):
        Quantize(method="qat").apply(Draft(cells), Context(work))
    model = models.mlp()
    with pytest.raises(DataError, match="qat trains on"):
        Quantize(method="qat").apply(Draft(model), Context(Workload(model, valid=digits.valid)))
    with pytest.raises(OptionError, match="no effect"):
        Quantize(epochs=2).apply(Draft(model), Context(Workload(model, valid=digits.valid)))


@pytest.mark.slow
def test_a_keras_model_is_rounded_alike_and_gets_it_back() -> None:
    import keras

    from nbopt.frameworks.keras import FRAMEWORK

    layers = keras.layers
    keras.utils.set_random_seed(0)
    entry = keras.Input((8, 8, 3))
    hidden = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(entry)
    hidden = layers.SeparableConv2D(6, 3)(layers.ReLU()(layers.BatchNormalization()(hidden)))
    hidden = layers.Conv2DTranspose(4, 2)(hidden)
    hidden = layers.MultiHeadAttention(2, 4)(*[layers.Reshape((49, 4))(hidden)] * 2)
    model = keras.Model(entry, layers.Dense(3)(layers.Flatten()(hidden)))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, 64)
    work = Workload(model, train=(x, y), valid=(x, y))
    plain = FRAMEWORK.predict(model, (x,))
    draft = Quantize(method="qat", calibration=32).apply(Draft(model), Context(work))
    error = np.abs(FRAMEWORK.predict(draft.model, (x,)) - plain).max()
    assert 0 < error < 0.1 * np.abs(plain).max()
    (finish,) = draft.finish
    finished = finish(draft.model)
    assert 0 < np.abs(FRAMEWORK.predict(finished, (x,)) - plain).max() < 0.1 * np.abs(plain).max()
    kernel = finished.layers[1].get_weights()[0]
    np.testing.assert_allclose(rounding.round_weights(kernel, (0, 1), rounding.weight_levels()), kernel, atol=1e-6)
    np.testing.assert_array_equal(FRAMEWORK.predict(model, (x,)), plain)
    assert [v.path for v in draft.model.variables] == [v.path for v in model.variables]

    dense = keras.Sequential([keras.Input((5,)), layers.Dense(4)])
    flat = x.reshape(64, -1)[:, :5]
    work = Workload(dense, train=(flat, y), valid=(flat, y))
    draft = Quantize(method="qat", calibration=64).apply(Draft(dense), Context(work))
    kernel, bias = dense.get_weights()
    grid = rounding.round_weights(kernel, (0,), rounding.weight_levels())
    inputs = rounding.round_activations(flat, float(flat.min()), float(flat.max()))
    np.testing.assert_allclose(FRAMEWORK.predict(draft.model, (flat,)), inputs @ grid + bias, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "functional", "subclassed"])
def test_a_search_trains_copies_that_round_as_the_model_does(kind: str, digits: Digits) -> None:
    model: Any
    if kind == "torch":
        torch.manual_seed(0)
        model = models.mlp()
    else:
        import keras

        class Own(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.first = keras.layers.Dense(16, activation="relu")
                self.last = keras.layers.Dense(10)

            def call(self, inputs: Any) -> Any:
                return self.last(self.first(inputs))

        keras.utils.set_random_seed(0)
        parts = [keras.Input((64,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10)]
        model = keras.Sequential(parts) if kind == "functional" else Own()
        model(digits.train[0][:2])
    work = Workload(model, train=digits.train, valid=digits.valid, test=digits.test)
    context, rows = Context(work), (digits.valid[0][:50],)
    draft = Quantize(method="qat", calibration=64).apply(Draft(model), context)
    plain, rounded_outputs = (work.framework.predict(each, rows) for each in (model, draft.model))
    copied = work.framework.clone(draft.model)
    np.testing.assert_allclose(work.framework.predict(copied, rows), rounded_outputs, atol=1e-5)
    assert np.abs(rounded_outputs - plain).max() > 1e-4
    (finish,) = draft.finish
    finished = work.framework.predict(finish(copied), rows)
    assert 0 < np.abs(finished - plain).max() < 0.05 * np.abs(plain).max()  # its weights are on their grid
    assert np.abs(finished - rounded_outputs).max() > 1e-4  # its inputs are not
    np.testing.assert_allclose(work.framework.predict(draft.model, rows), rounded_outputs, atol=1e-5)

    recipe = Recipe.parse("quantize --method qat --epochs 2 --calibration 64 | tune --trials 3 --finalists 0")
    run = optimize(work, *recipe.techniques, runtimes=["onnxruntime"], threads=1)["quantize+tune/onnxruntime"]
    assert not run.failed, run.reason
    assert [each["state"] for each in run.search["trials"]].count("failed") == 0
    assert "int8" in run.dtype
