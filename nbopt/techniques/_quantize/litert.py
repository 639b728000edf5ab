"""Quantize for LiteRT: TensorFlow's own converter from the Keras model, the ai-edge-quantizer for weights alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.draft import Context, Lowered
from nbopt.errors import ExportError
from nbopt.frameworks import Exported, Signature
from nbopt.runtimes import Runtime
from nbopt.techniques._quantize.calibrating import calibration_rows
from nbopt.techniques._quantize.mixed import manifest_for, write_mixed
from nbopt.techniques._quantize.refusals import of_groups

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

SMALL_WEIGHTS = 1024
"""Elements below which the converter leaves a weight in float for `dynamic`."""


def refuses(options: Quantize, runtime: Runtime, framework: str) -> str:
    """Return why the options have no way here, "" where they have."""
    if options.dtype == "bfloat16":
        return "LiteRT has no bfloat16 kernels: --dtype float16"
    if framework != "keras" and options.how != "weight_only":
        return "its converter starts from a Keras model; of torch models only --method weight_only"
    if options.calibration_method != "minmax":
        return "its calibration knows the extremes only: --calibration-method minmax"
    if options.equalize or options.bias_correction:
        which = "equalize" if options.equalize else "bias-correction"
        return f"its converter has no --{which}: --runtime openvino"
    return of_groups(options)


def lower(
    model: Any,
    signature: Signature,
    source: Exported,
    runtime: Runtime,
    folder: Path,
    context: Context,
    options: Quantize,
) -> Lowered:
    """Write a .tflite with int8 weights and activations (static), int8 weights (dynamic) or float16 weights.

    Inputs and outputs stay as they are in the float file, unless int8 is asked for. The ai-edge-quantizer was tried on
    the same files and is used for weights alone: its static int8 of a Fashion-MNIST CNN changed a logit by 11.6 where
    this changes one by 0.12.

    Raises:
        ExportError: bfloat16; static int8 of a loop; a model that is not of Keras.
    """
    refused = refuses(options, runtime, context.workload.framework.family)
    if refused:
        raise ExportError("what LiteRT has", options.text(), refused)
    target = folder / f"model{runtime.suffix}"
    exported = Exported(target, batch=source.batch, notes=source.notes)
    if options.how == "weight_only":
        from nbopt.techniques._quantize.litert_weights import write_weight_only

        return Lowered(exported, "int8", write_weight_only(source.path, target, options))
    from nbopt.frameworks._keras_export import convert_litert, in_float32

    # Calibration of a graph that casts to float16 fails in the converter, and the source file is of float32 too.
    model, halved = in_float32(context.workload.framework, model)
    if options.dtype == "float16":
        target.write_bytes(convert_litert(model, signature, source.batch, _float16))
        note = "LiteRT computes in float32 on CPU: only the file holds float16"
        return Lowered(exported, "float16", (*halved, note))
    if options.how == "dynamic":
        target.write_bytes(convert_litert(model, signature, source.batch, _dynamic(options.per_channel)))
        notes: tuple[str, ...] = (
            f"activations become int8 at run time; weights of under {SMALL_WEIGHTS} numbers stay float",
        )
        sensitivity: dict[str, Any] = {}
    elif (trained := _with_ranges(model, context, options)) is not None:
        target.write_bytes(convert_litert(trained, signature, source.batch, _of_ranges(options.io)))
        notes, sensitivity = ("ranges are those of qat",), {}
    else:
        _check_no_loop(source.path)
        rows, notes = calibration_rows(signature, context, options)
        parts = _Parts(model, signature, source, rows, options)
        manifest = manifest_for(runtime, signature, source)
        mixed = write_mixed(parts, target, options.keep_float, source.path, manifest, runtime, context)
        notes, sensitivity = (*notes, *mixed.notes), mixed.to_dict()
    if options.io == "int8":
        notes = (*notes, 'inputs and outputs are int8; run.export("model.h") writes it as a C array')
    if not _holds_int8(target):
        target.unlink()
        raise ExportError(
            "weights that LiteRT quantizes",
            f"none: {options.method} int8 changed no tensor (weights of under {SMALL_WEIGHTS} numbers stay float)",
            "--method static, or --dtype float16",
        )
    return Lowered(exported, "int8", (*halved, *notes), sensitivity)


class _Parts:
    """Calibrate once, and quantize again and again."""

    def __init__(
        self,
        model: Any,
        signature: Signature,
        source: Exported,
        rows: list[dict[str, np.ndarray[Any, Any]]],
        options: Quantize,
    ) -> None:
        from nbopt.frameworks._keras_export import convert_litert

        self._options = options

        def feed() -> Iterator[dict[str, Any]]:
            yield from rows

        def calibrated(converter: Any) -> None:
            import tensorflow as tf

            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = feed
            # The graph with the ranges in it: what is to be quantized is decided afterwards, as often as need be.
            converter._experimental_calibrate_only = True

        self._calibrated = convert_litert(model, signature, source.batch, calibrated)
        self._layers = _layers(source.path)

    @property
    def layers(self) -> Sequence[str]:
        """Return the layers that can be left out."""
        return list(self._layers)

    def write(self, target: Path, kept: Collection[str]) -> None:
        """Write a file with some layers in float."""
        import tensorflow as tf
        from tensorflow.lite.python.convert import mlir_quantize

        from nbopt.frameworks._quiet import quiet

        kind = tf.int8 if self._options.io == "int8" else tf.float32
        with quiet():
            content = mlir_quantize(
                self._calibrated,
                disable_per_channel=not self._options.per_channel,
                fully_quantize=self._options.io == "int8",
                input_data_type=kind,
                output_data_type=kind,
                denylisted_nodes={node for layer in kept for node in self._layers[layer]} or None,
            )
        target.write_bytes(content)


def _layers(path: Path) -> dict[str, list[str]]:
    """Return the operators with weights by the name that an audit gives them, and the tensors that name them."""
    from ai_edge_litert.interpreter import Interpreter

    from nbopt.frameworks._quiet import quiet
    from nbopt.runtimes._litert_layers import CONV, PRODUCT, TRANSPOSED

    found: dict[str, list[str]] = {}
    with quiet():
        interpreter = Interpreter(model_path=str(path))
        details = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
        operators = interpreter._get_ops_details()
    for operator in operators:
        if operator["op_name"] in {*CONV, *TRANSPOSED, *PRODUCT}:
            name = details[operator["outputs"][0]]
            found.setdefault(name.split(";")[0], []).append(name)
    return found


def _float16(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _with_ranges(model: Any, context: Context, options: Quantize) -> Any:
    """Return the model with the ranges that qat trained, where its framework has such a thing; None without.

    Layers that stay float are found by calibrating with and without them, so there the ranges are calibrated.
    """
    searched = options.keep_float == "auto" and context.max_drop is not None
    if options.how != "qat" or searched or options.keep_float not in ("auto", "none"):
        return None
    lowering = importlib.import_module(f"nbopt.techniques._quantize.rounding_{context.workload.framework.name}")
    return None if lowering.IN_PLACE else lowering.with_ranges(model)


def _of_ranges(io: str) -> Callable[[Any], None]:
    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if io == "int8":
            converter.inference_input_type = converter.inference_output_type = tf.int8

    return configure


def _dynamic(per_channel: bool) -> Callable[[Any], None]:
    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter._experimental_disable_per_channel = not per_channel

    return configure


def _holds_int8(path: Path) -> bool:
    """Tell whether any tensor is int8, in the bodies of loops too, which the interpreter does not list."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    return any(
        graph.Tensors(i).Type() == schema.TensorType.INT8 for graph in graphs for i in range(graph.TensorsLength())
    )


def _check_no_loop(path: Path) -> None:
    """Refuse loops before the converter sees them.

    Calibrating one ends the process with a segmentation fault in TensorFlow 2.21, the user's kernel with it:
    `keras.Sequential([keras.Input((12, 6)), keras.layers.LSTM(16)])`, batch 1, any representative data set.
    """
    from ai_edge_litert.interpreter import Interpreter

    from nbopt.frameworks._quiet import quiet

    with quiet():
        operations = {details["op_name"] for details in Interpreter(model_path=str(path))._get_ops_details()}
    if operations & {"WHILE", "IF", "UNIDIRECTIONAL_SEQUENCE_LSTM"}:
        raise ExportError(
            "a model without loops for static int8 on LiteRT",
            "recurrent layers or other control flow, which its calibration can't follow",
            "--method dynamic, --dtype float16, or --runtime openvino",
        )
