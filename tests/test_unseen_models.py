"""Models that nobody tuned nbopt for keep the contract: what the table says is what the exported file does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nbopt.arrays import to_numpy
from nbopt.artifacts import load
from nbopt.comparison import Comparison
from nbopt.data import Split, kept_randomness
from nbopt.frozen import join_ragged
from nbopt.loop import optimize
from nbopt.measurement.metrics import metric_of
from nbopt.measurement.predictions import prepare
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests.models import TextEncoder, WholeBatch, train

RNG = np.random.default_rng(0)
ROWS = 240
PRUNED = (Prune(sparsity=0.3, structured=True), Quantize(calibration=32))
ZEROS = (Prune(sparsity=0.3), Quantize(calibration=32))
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """Hold a model with its data.

    Args:
        model: Trained for a second, or not at all.
        data: All rows, of which the first half trains.
        runtimes: Where it is measured, beside its own framework.
        recipe: What is done to it.
        worst: Quality that the recipe may cost.
        more: Metric and loss.
    """

    model: Any
    data: Any
    runtimes: tuple[str, ...]
    recipe: tuple[Any, ...] = PRUNED
    worst: float = 0.15
    more: Any = None


def normal(*shape: int) -> Array:
    return RNG.normal(size=(ROWS, *shape)).astype(np.float32)


def tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def batches(x: Any, y: Array, size: int = 50) -> list[Any]:
    """Return batches of uneven size, as a loader gives them: the last is shorter."""

    def part(rows: slice) -> Any:
        if isinstance(x, dict):
            return {**{name: tensor(leaf[rows]) for name, leaf in x.items()}, "labels": tensor(y[rows])}
        inputs = tuple(tensor(leaf[rows]) for leaf in x) if isinstance(x, tuple) else tensor(x[rows])
        return inputs, tensor(y[rows])

    return [part(slice(start, start + size)) for start in range(0, len(y), size)]


def fitted(model: nn.Module, x: tuple[Array, ...] | dict[str, Array], y: Array, loss: Callable[..., Any]) -> nn.Module:
    torch.manual_seed(0)
    inputs: list[Any] = [tensor(leaf) for leaf in (x.values() if isinstance(x, dict) else x)]
    inputs, targets = [dict(zip(x, inputs, strict=True))] if isinstance(x, dict) else inputs, tensor(y)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    model.train()
    for _ in range(40):
        optimizer.zero_grad()
        loss(model(*inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


class Residual(nn.Module):
    """A small MobileNet: depthwise convolutions, BatchNorm, squeeze and excitation, a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.Hardswish())
        self.point = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.head = nn.Linear(16 * 4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.point(self.deep(x)) * self.gate(x)
        return self.head(functional.adaptive_avg_pool2d(x, 2).view(x.size(0), -1))


class Segments(nn.Module):
    """A class for each pixel, by way of a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.head = nn.Conv2d(11, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([x, self.up(self.down(x)).relu()], 1))


class Lengths(nn.Module):
    """A bidirectional GRU on sequences of any length, with the length of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(6, 16, batch_first=True, bidirectional=True)
        self.head = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        states, _ = self.cells(x)
        kept = torch.arange(x.shape[1])[None] < lengths[:, None]
        return self.head((states * kept[..., None]).mean(1) * x.shape[1] / lengths[:, None])


class Tagger(nn.Module):
    """A distribution for each token of sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(30, 16), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids)).softmax(-1)


class Both(nn.Module):
    """An image beside a table."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.table = nn.Sequential(nn.Linear(5, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 4))

    def forward(self, image: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.image(image), self.table(table)], 1))


def images(size: int = 12) -> tuple[Array, Array]:
    """Return images one quarter of which is bright, and which quarter."""
    y, x = RNG.integers(0, 4, ROWS), normal(3, size, size)
    half = size // 2
    for image, (row, column) in zip(x, zip(y // 2, y % 2, strict=True), strict=True):
        image[0, row * half : (row + 1) * half, column * half : (column + 1) * half] += 1.5
    return x, y


def residual() -> Case:
    x, y = images()
    return Case(train(Residual(), x, y, steps=30), batches(x, y), ("onnxruntime",), worst=0.4)


def segments() -> Case:
    x = normal(3, 8, 8)
    y = x.argmax(1)
    return Case(fitted(Segments(), (x,), y, functional.cross_entropy), batches(x, y), ("openvino",), ZEROS)


def lengths() -> Case:
    y = RNG.integers(0, 3, ROWS)
    x, n = normal(9, 6), RNG.integers(3, 6, ROWS)
    x[:, :, :3] += np.eye(3)[y][:, None]
    model = fitted(Lengths(), (x, n), y, functional.cross_entropy)
    # Each batch is padded to a length of its own.
    uneven = [((i[:, : 5 + k], m), t) for k, ((i, m), t) in enumerate(batches((x, n), y))]
    return Case(model, uneven, ("onnxruntime",))


def tagged() -> Case:
    ids = RNG.integers(0, 30, (ROWS, 9))
    y = ids % 3
    model = fitted(Tagger(), (ids,), y, lambda output, target: functional.nll_loss(output.log().mT, target))
    uneven = [(i[:, : 5 + k], t[:, : 5 + k]) for k, (i, t) in enumerate(batches(ids, y))]
    return Case(model, uneven, ("onnxruntime",), (Prune(sparsity=0.3), Quantize(method="dynamic")))


def transformer() -> Case:
    y = RNG.integers(0, 3, ROWS)
    ids = RNG.integers(1, 16, (ROWS, 8)) + 16 * y[:, None]
    mask = (np.arange(8) < RNG.integers(4, 9, (ROWS, 1))).astype(np.int64)
    model = TextEncoder()
    fitted(model, (ids, mask), y, lambda output, target: functional.cross_entropy(output.logits, target))
    return Case(model, batches({"attention_mask": mask, "input_ids": ids}, y), ("openvino",), ZEROS)


def both() -> Case:
    (image, y), table = images(), normal(5)
    return Case(fitted(Both(), (image, table), y, functional.cross_entropy), batches((image, table), y), ("openvino",))


def whole() -> Case:
    x = normal(6)
    y, data = x.argmax(1) // 2, {"a": x, "b": x * 2}
    model = fitted(WholeBatch(), data, y, lambda output, target: functional.cross_entropy(output["logits"], target))
    return Case(model, batches(data, y), ("onnxruntime",))


def bag() -> Case:
    y = RNG.integers(0, 3, ROWS)
    ids = RNG.integers(0, 30, (ROWS, 9)) + 10 * y[:, None]
    model = nn.Sequential(nn.EmbeddingBag(50, 16), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3))
    return Case(fitted(model, (ids,), y, functional.cross_entropy), batches(ids, y), ("openvino",))


def rare() -> Case:
    x = normal(8)
    score = x[:, 0] + x[:, 1]
    y = (score > np.sort(score)[-12]).astype(np.float32)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0))
    fitted(model, (x,), y, functional.binary_cross_entropy_with_logits)
    loss = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(5.0))
    more = {"metric": "average_precision", "loss": loss}
    return Case(model, batches(x.astype(np.float64), y), ("onnxruntime",), ZEROS, 0.4, more)


def values() -> Case:
    x = normal(8)
    y = np.stack([x[:, 0] * 2, np.abs(x[:, 1])], 1)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
    fitted(model, (x,), y, functional.mse_loss)
    return Case(model, batches(x, y), ("onnxruntime",), ZEROS, 0.6, {"metric": "mae"})


def half() -> Case:
    x = normal(8)
    y = x[:, :3].argmax(1)
    model = train(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 3)), x, y).bfloat16()
    return Case(model, batches(x, y), ("openvino",), (Quantize(calibration=32),))


def keras_model(inputs: Any, outputs: Any, data: Any, y: Array, loss: Any) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(data, y, epochs=8, batch_size=40, verbose=0)
    return model


def keras_cnn() -> Case:
    import keras

    x, y = images()
    x = np.moveaxis(x, 1, -1).copy()
    entry = keras.Input((12, 12, 3))
    hidden = keras.layers.BatchNormalization(momentum=0.7)(keras.layers.Conv2D(12, 3, activation="swish")(entry))
    hidden = keras.layers.SeparableConv2D(16, 3, padding="same", activation="relu")(hidden)
    hidden = keras.layers.Flatten()(keras.layers.AveragePooling2D(5)(hidden))

    def mine(target: Any, output: Any) -> Any:
        return keras.losses.sparse_categorical_crossentropy(target, output)

    model = keras_model(entry, keras.layers.Dense(4, "softmax")(hidden), x, y, mine)
    return Case(model, (x, y), ("litert",), worst=0.5)


def keras_masked() -> Case:
    import keras

    y = RNG.integers(0, 3, ROWS)
    x = (RNG.integers(1, 10, (ROWS, 7)) + 10 * y[:, None]) * (np.arange(7) < RNG.integers(3, 8, (ROWS, 1)))
    entry = keras.Input((7,), dtype="int32")
    states = keras.layers.LSTM(24)(keras.layers.Embedding(40, 8, mask_zero=True)(entry))
    outputs = keras.layers.Dense(3)(keras.layers.Dense(48, "relu")(states))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = keras_model(entry, outputs, x, y, loss)
    recipe = (Prune(sparsity=0.3), Quantize(method="dynamic"))
    return Case(model, (x, y), ("onnxruntime",), recipe)


def keras_dict() -> Case:
    import keras
    import tensorflow as tf

    (image, _), table = images(), normal(5)
    y = (table[:, :3] > 0).astype(np.float32)
    x = {"table": table, "image": np.moveaxis(image, 1, -1).copy()}
    entries = {"image": keras.Input((12, 12, 3), name="image"), "table": keras.Input((5,), name="table")}
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(entries["image"]))
    hidden = keras.layers.Dense(48, "relu")(keras.layers.Concatenate()([pooled, entries["table"]]))
    hidden = keras.layers.Lambda(lambda v: v * 2)(hidden)
    model = keras_model(entries, keras.layers.Dense(3, "sigmoid")(hidden), x, y, "binary_crossentropy")
    return Case(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(50), ("litert",), ZEROS, 0.4, {"metric": "f1"})


TORCH = [residual, segments, lengths, tagged, transformer, both, whole, bag, rare, values, half]
KERAS = [keras_cnn, keras_masked, keras_dict]


def weights(model: Any) -> list[bytes]:
    if isinstance(model, nn.Module):
        kept = [(name, value.float().numpy().tobytes()) for name, value in model.state_dict().items()]
        parts = [(m.training, sorted(vars(m)), type(m)) for m in model.modules()]
        return [*map(repr, parts), *map(repr, kept)]  # type: ignore[list-item]
    return [*(v.numpy().tobytes() for v in model.variables), repr((model.compiled, sorted(vars(model)))).encode()]


@pytest.mark.parametrize(
    "make", [*TORCH, *(pytest.param(make, marks=pytest.mark.slow) for make in KERAS)], ids=lambda make: make.__name__
)
def test_what_the_table_says_is_what_the_exported_file_does(make: Callable[[], Case], tmp_path: Path) -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state  # each case has its own data in any order
    case = make()
    before = weights(case.model)
    more = case.more or {}
    work = Workload(case.model, train=case.data, valid=case.data, name=make.__name__, **more)
    comparison = optimize(work, *case.recipe, seed=0, threads=1, runtimes=case.runtimes)
    assert weights(case.model) == before
    rows = list(comparison)
    assert len([run for run in rows if not run.is_control]) == 1 + 2 * len(case.runtimes)
    assert any(run.epochs for run in rows) == any(run.is_control for run in rows)
    for run in rows:
        assert run.status == "ok", f"{run.name}: {run.reason}"
        assert run.quality is not None
        exact = 0.1 if "bfloat16" in rows[0].dtype else 1e-3
        if run.is_baseline and run.max_error is not None:
            assert run.max_error < exact, run.name
        again = load(run.export(tmp_path / run.name.replace("/", "-")))
        assert quality_of(work, again.predict, case.data) == pytest.approx(run.quality, abs=1e-12), run.name
        again.session.close()
        if not run.is_baseline:
            lost = (rows[0].quality or 0) - run.quality
            assert (lost if run.greater_is_better else -lost) < case.worst, run.name
            assert run.is_control or "int8" in run.dtype
    best = comparison.best(max_drop=2.0, minimize="size")
    assert best.size_bytes == min(run.size_bytes or 0 for run in rows)


def quality_of(work: Workload, predict: Callable[[Any], Array], data: Any) -> float:
    """Return the metric of a loaded file on the user's own batches."""
    metric = metric_of(work.metric, output=work.output)
    raw, labels = [], []
    with kept_randomness():
        for batch in Split(data, "valid"):
            inputs = batch.inputs
            raw.append(predict(inputs if isinstance(inputs, dict) else inputs if len(inputs) > 1 else inputs[0]))
            labels.append(to_numpy(batch.targets))
    return float(metric.of(prepare(join_ragged(labels), join_ragged(raw), metric.output)))


def test_a_comparison_of_an_unseen_model_reads_as_a_table(tmp_path: Path) -> None:
    case = values()
    work = Workload(copy.deepcopy(case.model), valid=case.data)
    comparison = optimize(work, threads=1, runtimes=())
    assert isinstance(comparison, Comparison)
    assert list(comparison.frame()["run"]) == ["baseline/torch"]
