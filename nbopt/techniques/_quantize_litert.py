"""Quantize for LiteRT with TensorFlow's own converter, from the Keras model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbopt.data import Inputs
from nbopt.errors import ExportError
from nbopt.frameworks import Exported, Signature
from nbopt.runtimes import Runtime
from nbopt.technique import Context, Lowered

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize

SMALL_WEIGHTS = 1024
"""Elements below which the converter leaves a weight in float for `dynamic`."""


def refuses(options: Quantize) -> str:
    """Return why the options have no way here, "" where they have."""
    return "LiteRT has no bfloat16 kernels: --dtype float16" if options.dtype == "bfloat16" else ""


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

    Inputs and outputs stay as they are in the float file. The ai-edge-quantizer was tried on the same files and
    is not used: its static int8 of a Fashion-MNIST CNN changed a logit by 11.6 where this changes one by 0.12.

    Raises:
        ExportError: bfloat16; static int8 of a loop; a model that is not of Keras.
    """
    refused = refuses(options)
    if refused:
        raise ExportError("a precision that LiteRT has", "bfloat16", refused)
    if context.workload.framework.name != "keras":
        raise ExportError("a Keras model", f"a {context.workload.framework.name} model")
    from nbopt.frameworks._keras_export import convert_litert, in_float32

    # Calibration of a graph that casts to float16 fails in the converter, and the source file is of float32 too.
    model, halved = in_float32(context.workload.framework, model)
    notes: list[str] = list(halved)
    configure: Callable[[Any], None]
    if options.dtype == "float16":
        configure, precision = _float16, "float16"
        notes.append("LiteRT computes in float32 on CPU: only the file holds float16")
    elif options.method == "dynamic":
        configure, precision = _dynamic(options.per_channel), "int8"
        notes.append(f"activations become int8 at run time; weights of under {SMALL_WEIGHTS} numbers stay float")
    else:
        _check_no_loop(source.path)
        rows, note = context.workload.calibration(options.calibration, context.rng())
        configure, precision = _static(rows, signature, options.per_channel), "int8"
        notes += [note] if note else []
    content = convert_litert(model, signature, source.batch, configure)
    target = folder / f"model{runtime.suffix}"
    target.write_bytes(content)
    if precision == "int8" and not _holds_int8(target):
        target.unlink()
        raise ExportError(
            "weights that LiteRT quantizes",
            f"none: {options.method} int8 changed no tensor (weights of under {SMALL_WEIGHTS} numbers stay float)",
            "--method static, or --dtype float16",
        )
    return Lowered(Exported(target, batch=source.batch, notes=source.notes), precision, tuple(notes))


def _float16(converter: Any) -> None:
    import tensorflow as tf

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def _dynamic(per_channel: bool) -> Callable[[Any], None]:
    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter._experimental_disable_per_channel = not per_channel

    return configure


def _static(rows: list[Inputs], signature: Signature, per_channel: bool) -> Callable[[Any], None]:
    def feed() -> Iterator[dict[str, Any]]:
        for row in rows:
            yield dict(row) if isinstance(row, dict) else dict(zip(signature.names, row, strict=True))

    def configure(converter: Any) -> None:
        import tensorflow as tf

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = feed
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
