"""What was asked and what is executed are two things: quantized, pruned and half-size artifacts tell the second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbopt.batches import Inputs, rows_of, take_rows
from nbopt.draft import Context, Draft
from nbopt.measurement.audit import Audit, audit_of, shortfall
from nbopt.measurement.environment import machine
from nbopt.runtimes import Layer, Manifest, runtime_named
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests.conftest import Digits

Lowered = Callable[..., tuple[Layer, ...]]


def images(digits: Digits) -> Any:
    return digits.x.reshape(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def torch_cnn(trained_cnn: Any, digits: Digits) -> Workload:
    x = images(digits)
    return Workload(trained_cnn, train=(x[:300], digits.y[:300]), valid=(x[300:400], digits.y[300:400]))


@pytest.fixture(scope="module")
def keras_cnn(digits: Digits) -> Workload:
    """A net that is large enough for LiteRT's converter to quantize its weights dynamically."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    body = [layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(64, "relu"), layers.Dense(10)])
    x = np.ascontiguousarray(np.moveaxis(images(digits), 1, -1))
    return Workload(model, train=(x[:300], digits.y[:300]), valid=(x[300:400], digits.y[300:400]))


def session_of(work: Workload, runtime_name: str, path: Path, batch: int | None, precision: str) -> Any:
    signature = work.signature
    manifest = Manifest(runtime_name, tuple(signature.names), signature.keyed, batch, precision)
    return runtime_named(runtime_name).load(path, manifest, threads=1)


def row_of(work: Workload) -> Inputs:
    return take_rows(next(work.report_rows.batches()), slice(0, 1))


@pytest.fixture
def lowered(tmp_path: Path) -> Lowered:
    """Give a function that quantizes a model for a runtime and returns the layers of what came of it."""

    def layers(work: Workload, runtime_name: str, options: Quantize) -> tuple[Layer, ...]:
        runtime = runtime_named(runtime_name)
        source = work.framework.export(work.model, work.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
        (step,) = options.apply(Draft(work.model), Context(work)).lower
        folder = tmp_path / "lowered"
        folder.mkdir()
        done = step(work.model, work.signature, source, runtime, folder, Context(work))
        path = done.exported.path
        session = session_of(work, runtime_name, path, done.exported.batch, done.precision)
        assert runtime.leftovers(path, session) == ()
        return runtime.layers(path, session, row_of(work))

    return layers


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_int8_static_runs_in_int8(lowered: Lowered, torch_cnn: Workload, runtime: str) -> None:
    layers = lowered(torch_cnn, runtime, Quantize())
    assert {layer.weight_dtype for layer in layers} == {"int8"}
    audit = audit_of(layers)
    assert audit.mac_shares["int8"] == 1
    assert shortfall(audit, "int8") == ""


def test_int8_static_runs_in_int8_on_litert(lowered: Lowered, keras_cnn: Workload) -> None:
    layers = lowered(keras_cnn, "litert", Quantize())
    assert {(layer.weight_dtype, layer.compute_dtype) for layer in layers} == {("int8", "int8")}


def test_a_quantizer_that_touched_only_the_last_layer_is_named(lowered: Lowered, torch_cnn: Workload) -> None:
    audit = audit_of(lowered(torch_cnn, "onnxruntime", Quantize(method="dynamic")))
    assert [layer.compute_dtype for layer in audit.layers] == ["float32", "float32", "int8 dynamic"]
    assert shortfall(audit, "int8") == "int8 asked, 2% of MACs run in int8 (1 of 3 layers)"


def test_litert_dynamic_tells_which_layers_it_left_in_float(lowered: Lowered, keras_cnn: Workload) -> None:
    layers = lowered(keras_cnn, "litert", Quantize(method="dynamic"))
    by_size = {layer.weights: (layer.weight_dtype, layer.compute_dtype) for layer in layers}
    assert by_size[9 * 16] == ("float32", "float32")
    assert by_size[9 * 16 * 16] == ("int8", "int8 dynamic")
    assert by_size[256 * 64] == ("int8", "int8 dynamic")
    assert by_size[64 * 10] == ("float32", "float32")


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_litert_hybrid_kernels_do_quantize_their_activations(tmp_path: Path, kind: str) -> None:
    """What "int8 dynamic" rests on: an activation that its row's scale rounds to nothing is lost."""
    import keras
    import tensorflow as tf

    from nbopt.frameworks._keras_export import convert_litert
    from tests.keras_models import signature

    keras.utils.set_random_seed(0)
    shape = (64,) if kind == "dense" else (8, 8, 16)
    layer = keras.layers.Dense(64) if kind == "dense" else keras.layers.Conv2D(16, 3)
    model = keras.Sequential([keras.Input(shape), layer])
    large = np.full((1, *shape), 1e-3, np.float32)
    alone = np.zeros_like(large)
    large.reshape(-1)[0] = alone.reshape(-1)[0] = 100.0  # of whose 255 steps a thousandth is less than one half

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

    path = tmp_path / "m.tflite"
    path.write_bytes(convert_litert(model, signature((np.repeat(large, 5, axis=0),)), None, configure))
    session = runtime_named("litert").load(path, Manifest("litert", ("input_0",)), threads=1)
    (told,) = runtime_named("litert").layers(path, session, (large,))
    assert (told.weight_dtype, told.compute_dtype) == ("int8", "int8 dynamic")
    np.testing.assert_allclose(session.run((large,)), session.run((alone,)), rtol=1e-6, atol=1e-6)
    exact = model(large, training=False).numpy() - model(alone, training=False).numpy()
    assert np.abs(exact).max() > 1e-5


@pytest.mark.parametrize(
    ("runtime", "options"),
    [("onnxruntime", Quantize(dtype="float16")), ("openvino", Quantize(method="dynamic"))],
    ids=["float16", "weights only"],
)
def test_storage_alone_is_told_as_that(lowered: Lowered, torch_cnn: Workload, runtime: str, options: Quantize) -> None:
    audit = audit_of(lowered(torch_cnn, runtime, options))
    assert audit.weight_shares == {options.dtype: 1}
    assert "int8" not in audit.mac_shares
    if "unknown" not in audit.mac_shares:  # on CPUs with VNNI OpenVINO may do more, and does not tell
        assert shortfall(audit, options.dtype) == f"{options.dtype} is storage only: computes in float32"
    assert shortfall(audit, options.dtype, weight_only=True) == ""


def test_bfloat16_asked_shows_what_this_cpu_does(lowered: Lowered, torch_cnn: Workload) -> None:
    audit = audit_of(lowered(torch_cnn, "openvino", Quantize(dtype="bfloat16")))
    has = {"AVX512-BF16", "AMX-BF16", "BF16"} & set(machine()["instruction_sets"])
    assert audit.precision == ("bfloat16" if has else "float32")
    assert shortfall(audit, "bfloat16") == ("" if has else "bfloat16 asked: this CPU computes in float32")


def test_weights_behind_a_dequantizer_that_nothing_fuses_run_in_float32(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save_model

    weights = np.arange(-36, 36, dtype=np.int8).reshape(8, 1, 3, 3)
    constants = {"w": weights, "scale": np.float32(0.1), "zero": np.int8(3)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wd"]),
        helper.make_node("Conv", ["x", "wd"], ["y"], name="filters"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    path = tmp_path / "m.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    runtime = runtime_named("onnxruntime")
    session = runtime.load(path, Manifest("onnxruntime"), threads=1)
    (layer,) = runtime.layers(path, session, (np.ones((1, 1, 5, 5), np.float32),))
    assert (layer.weight_dtype, layer.compute_dtype, layer.macs) == ("int8", "float32", 9 * 72)
    assert layer.zeros == 1  # the one at the zero point


def sparse(model: Any, share: float) -> tuple[Any, float]:
    """Return a copy of a torch net with the smallest weights of each layer at zero, and the share that are zero."""
    import copy

    import torch

    pruned = copy.deepcopy(model)
    zeros = whole = 0
    for parameter in pruned.parameters():
        if parameter.dim() > 1:
            limit = parameter.detach().abs().flatten().quantile(share)
            with torch.no_grad():
                parameter[parameter.abs() <= limit] = 0
            zeros += int((parameter == 0).sum())
            whole += parameter.numel()
    return pruned, zeros / whole


@pytest.mark.parametrize("runtime_name", ["torch", "onnxruntime", "openvino"])
def test_the_zeros_of_unstructured_pruning_are_counted(
    trained_cnn: Any, torch_cnn: Workload, tmp_path: Path, runtime_name: str
) -> None:
    model, share = sparse(trained_cnn, 0.7)
    runtime = runtime_named(runtime_name)
    signature = torch_cnn.signature
    path = tmp_path / f"m{runtime.suffix}"
    torch_cnn.framework.export(model, signature, path, runtime.form)
    layers = runtime.layers(path, session_of(torch_cnn, runtime_name, path, None, "float32"), row_of(torch_cnn))
    audit = audit_of(layers)
    assert audit.zeros_share == pytest.approx(share, abs=1e-9)
    assert audit.zeros_share == pytest.approx(0.7, abs=0.01)
    assert all(0.6 < layer.zeros / layer.weights < 0.8 for layer in layers)


def test_masks_left_in_a_module_are_found_and_parametrizations_too() -> None:
    import torch
    from torch.nn.utils import parametrizations, prune

    from nbopt.runtimes._torch_layers import executed_layers, left_in_module

    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    net.register_buffer("causal_mask", torch.ones(4, 4))  # a model's own
    assert left_in_module(net) == ()
    prune.l1_unstructured(net[0], "weight", 0.5)
    parametrizations.weight_norm(net[1])
    names = left_in_module(net)
    assert {name for name in names if "parametrizations" not in name} == {"0.weight_mask", "0.weight_orig"}
    assert any(name.startswith("1.parametrizations") for name in names)
    first, second = executed_layers(net, lambda: net(torch.ones(1, 4)), 1)
    assert (first.weights, first.zeros, first.macs) == (16, 8, 16)
    assert (second.weights, second.macs) == (16, 16)


def test_a_mask_left_in_a_graph_is_found(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save_model

    nodes = [helper.make_node("Mul", ["w_orig", "w_mask"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(np.ones((4, 4), np.float32), name) for name in ("w_orig", "w_mask")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    path = tmp_path / "m.onnx"
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    runtime = runtime_named("onnxruntime")
    assert set(runtime.leftovers(path, runtime.load(path, Manifest("onnxruntime"), threads=1))) == {"w_orig", "w_mask"}


def torch_layers(module: Any, *given: Any) -> tuple[Layer, ...]:
    from nbopt.runtimes._torch_layers import executed_layers

    return executed_layers(module.eval(), lambda: module(*given), rows_of(given))


def test_torch_tells_casts_ties_and_dynamic_modules() -> None:
    import warnings

    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 16)
            self.head = nn.Linear(16, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.head(self.table(ids))

    table, head = torch_layers(Net(), torch.zeros(1, 4, dtype=torch.long))
    assert (table.kind, table.macs) == ("Embedding", 0)
    assert (head.weight_dtype, head.compute_dtype, head.macs) == ("float32", "bfloat16", 4 * 16 * 20)

    recurrent = nn.LSTM(8, 16, 2, batch_first=True, bidirectional=True)
    (lstm,) = torch_layers(recurrent, torch.randn(1, 5, 8))
    assert lstm.macs == 5 * 2 * (4 * 16 * (8 + 16) + 4 * 16 * (32 + 16))
    assert lstm.kind == "LSTM"

    transposed = nn.ConvTranspose2d(4, 8, 3, stride=2, groups=2)
    (layer,) = torch_layers(transposed, torch.randn(1, 4, 5, 5))
    assert (layer.kind, layer.macs) == ("ConvTranspose", 25 * 4 * 4 * 9)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dynamic = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 32)), {nn.Linear})
    (layer,) = torch_layers(dynamic, torch.randn(1, 64))
    assert (layer.weight_dtype, layer.compute_dtype, layer.macs) == ("int8", "int8 dynamic", 64 * 32)


def test_a_served_keras_model_is_counted_through_its_loops_and_custom_layers(tmp_path: Path) -> None:
    import keras

    from nbopt.frameworks.keras import FRAMEWORK
    from tests import keras_models

    layers = keras.layers

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first = layers.Conv2D(8, 3, padding="same")
            self.steps = layers.Bidirectional(layers.LSTM(6))
            self.head = keras_models.Scale(3)

        def call(self, x: Any) -> Any:
            return self.head(self.steps(keras.ops.reshape(self.first(x), (-1, 8, 64))))

    model, x = Net(), (keras_models.rows(8, 8, 1),)
    model(x[0])
    described = keras_models.signature(x)
    exported = FRAMEWORK.export(model, described, tmp_path / "m.keras", "keras")
    assert exported.path.suffix == ".zip"  # a class of the user's own
    runtime = runtime_named("keras")
    session = runtime.load(exported.path, Manifest("keras", tuple(described.names)), threads=1)
    told = runtime.layers(exported.path, session, (x[0][:1],))
    assert sum(layer.macs for layer in told) == 64 * 9 * 8 + 2 * 8 * 4 * 6 * (64 + 6) + 12 * 3
    assert sum(layer.weights for layer in told) == 9 * 8 + 2 * 4 * 6 * (64 + 6) + 12 * 3


def test_keras_mixed_precision_computes_in_its_policy(tmp_path: Path) -> None:
    import keras

    from nbopt.frameworks.keras import FRAMEWORK
    from tests import keras_models

    first = keras.layers.Dense(16, dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((8,)), first, keras.layers.Dense(4, dtype="float32")])
    x = (keras_models.rows(8),)
    described = keras_models.signature(x)
    exported = FRAMEWORK.export(model, described, tmp_path / "m.keras", "keras")
    runtime = runtime_named("keras")
    session = runtime.load(exported.path, Manifest("keras", tuple(described.names)), threads=1)
    audit: Audit = audit_of(runtime.layers(exported.path, session, (x[0][:1],)))
    assert [(layer.weight_dtype, layer.compute_dtype) for layer in audit.layers] == [
        ("float32", "bfloat16"),
        ("float32", "float32"),
    ]
    assert audit.mac_shares["bfloat16"] == pytest.approx(128 / 192)
