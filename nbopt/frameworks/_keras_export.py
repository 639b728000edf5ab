"""Write Keras models as .keras or SavedModel, LiteRT, ONNX and OpenVINO IR."""

from __future__ import annotations

import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from nbopt.batches import identifiers
from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Framework, Signature
from nbopt.frameworks._keras_call import UNTRACEABLE, needs_values
from nbopt.frameworks._keras_copy import follow_weights
from nbopt.frameworks._keras_dialect import is_legacy, is_own, layers_of, policy_of, set_policy
from nbopt.frameworks._primary import primary_output
from nbopt.frameworks._quiet import quiet

SAVED_MODEL_SUFFIX = ".savedmodel.zip"
OUTPUT = "output"
ONNX_OPSET = 18
ELSEWHERE = "try another runtime: --runtime keras runs all"


def export(framework: Framework, model: Any, signature: Signature, path: Path, form: str) -> Exported:
    """Write `model` in one form; see `Framework.export`.

    Raises:
        ExportError: The form can't hold an operation of the model; the reason names it.
        MissingExtra: The converter is not installed.
    """
    writers: dict[str, Callable[[Any, Signature, Path], Exported]] = {
        "litert": _litert,
        "onnx": _onnx,
        "openvino": _openvino,
    }
    if form != "keras" and form not in writers:
        raise ExportError(f"a form among keras, {', '.join(writers)}", repr(form))
    try:
        with quiet():
            serving_function(model, signature, None)[0].get_concrete_function()
    except UNTRACEABLE as error:
        if not needs_values(error):
            raise
        raise ExportError(
            "a model that TensorFlow can trace into a graph",
            f"Python that depends on values in {type(model).__name__}'s call",
            "use keras.ops.where or keras.ops.cond in place of `if`, and no .numpy()",
        ) from error
    if form != "keras":
        model, notes = in_float32(framework, model)
        exported = writers[form](model, signature, path)
        return Exported(exported.path, exported.batch, (*exported.notes, *notes))
    # An optimizer's slots would be in the file and triple its size: a baseline that nobody would ship.
    copied = framework.clone(model)
    if not is_legacy(copied):
        copied.compiled, copied.optimizer = False, None
    return _keras(copied, signature, path)


def in_float32(framework: Framework, model: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a model that computes in float32, and a note where it is a copy, since the model computes in fewer bits.

    Layers under a policy such as mixed_float16 hold float32 weights; CPUs lack kernels for what they compute.
    """
    half = _half_policies(model)
    if not half:
        return model, ()
    copied = framework.clone(model)
    for layer in (copied, *layers_of(copied)):
        if policy_of(layer).name in half:
            set_policy(layer, "float32")
    follow_weights(copied)
    note = f"exported in float32: the model computes in {', '.join(sorted(half))}, for which CPUs lack kernels"
    return copied, (note,)


def _half_policies(model: Any) -> set[str]:
    """Return the policies of layers that hold float32 weights and compute in fewer bits, as training on a GPU does."""
    return {policy_of(x).name for x in layers_of(model)} & {"mixed_float16", "mixed_bfloat16"}


def serving_function(model: Any, signature: Signature, batch: int | None) -> tuple[Any, list[Any]]:
    """Return a `tf.function` from the signature's inputs to {"output": primary output}, and its specs."""
    specs = [tf.TensorSpec([batch, *leaf.shape[1:]], leaf.dtype, name=leaf.name) for leaf in signature.leaves]
    names = signature.names

    def serve(*tensors: Any) -> dict[str, Any]:
        if signature.keyed:
            arguments: Any = dict(zip(names, tensors, strict=True))
        else:
            arguments = tensors[0] if len(tensors) == 1 else list(tensors)
        output = primary_output(model(arguments, training=False))
        return {OUTPUT: tf.cast(output, tf.float32) if output.dtype == tf.bfloat16 else output}

    return tf.function(serve, input_signature=specs, autograph=False), specs


def convert_litert(
    model: Any, signature: Signature, batch: int | None, configure: Callable[[Any], None] | None = None
) -> bytes:
    """Return the model as the content of a .tflite file with the signature "serving_default".

    The converter must not see variables. TensorFlow 2.21 writes files of half the size that give NaN:
    `m = keras.Sequential([keras.Input((20,)), keras.layers.Dense(64)]); m.export("m", verbose=False);
    tf.lite.TFLiteConverter.from_saved_model("m").convert()`, and `m.export("m.tflite", format="litert")` alike.
    So the graph is frozen first, and wrapped once more because a frozen function has no signature, without
    which inputs can only be told apart by guessing.

    Args:
        model: The Keras model.
        signature: Its inputs.
        batch: Rows that the file takes, None for any number.
        configure: Sets options of the `tf.lite.TFLiteConverter`.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function, specs = serving_function(model, signature, batch)
    names = identifiers(signature.names)  # TensorFlow renames others as it likes
    named_specs = {name: tf.TensorSpec(s.shape, s.dtype, name=name) for name, s in zip(names, specs, strict=True)}
    with quiet(), tempfile.TemporaryDirectory() as folder:
        frozen = convert_variables_to_constants_v2(function.get_concrete_function())

        def serve(**named: Any) -> dict[str, Any]:
            return {OUTPUT: frozen(*(named[name] for name in names))[0]}

        module = tf.Module()
        module.serve = tf.function(serve, autograph=False)
        traced = module.serve.get_concrete_function(**named_specs)
        # Swish has a gradient of its own, which TensorFlow 2.21 can't write of a frozen graph; no gradient is needed.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, folder, signatures={"serving_default": traced}, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if configure is not None:
            configure(converter)
        content: bytes = converter.convert()
    return content


def _keras(model: Any, signature: Signature, path: Path) -> Exported:
    with quiet():
        model.save(path)
    custom = sorted(set(_custom_objects(path)))
    if not custom:
        return Exported(path)
    path.unlink()
    target = path.with_name(path.stem + SAVED_MODEL_SUFFIX)
    function, _ = serving_function(model, signature, None)
    with tempfile.TemporaryDirectory() as folder, quiet():
        module = tf.Module()
        module.model = model
        module.serve = function
        tf.saved_model.save(module, folder, signatures={"serving_default": function.get_concrete_function()})
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(Path(folder).rglob("*")):
                archive.write(file, file.relative_to(folder))
    names = ", ".join(custom[:3]) + (", ..." if len(custom) > 3 else "")
    note = f"a zipped SavedModel: a .keras file does not hold the code of {names}"
    return Exported(target, notes=(note,), holds_model=False)


def _custom_objects(path: Path) -> Iterator[str]:
    """Yield the names of classes and functions in a .keras file that are not Keras' own."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            foreign = node.get("registered_name") is not None and "class_name" in node
            if foreign and not is_own(str(node.get("module") or "")):
                is_function = node["class_name"] == "function" and isinstance(node.get("config"), str)
                yield str(node["config"] if is_function else node["class_name"])
            if node.get("class_name") == "__lambda__":
                yield "a lambda"
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    yield from walk(config)


def _litert(model: Any, signature: Signature, path: Path) -> Exported:
    reasons = []
    for batch in (None, 1):
        try:
            content = convert_litert(model, signature, batch)
        except Exception as error:  # noqa: BLE001 - the converter's own exception types are not public
            reasons.append(_reason(error, model, signature))
            continue
        path.write_bytes(content)
        notes = (f"exported for batch 1 only: {reasons[0]}",) if reasons else ()
        return Exported(path, batch=batch, notes=notes)
    raise ExportError("operations that LiteRT has", reasons[-1], ELSEWHERE)


def _onnx(model: Any, signature: Signature, path: Path) -> Exported:
    try:
        import tf2onnx
    except ImportError as error:
        raise MissingExtra("tf2onnx", "tensorflow", "ONNX files of Keras models") from error
    import onnx

    try:
        with quiet():
            function, specs = serving_function(model, signature, None)
            handlers: dict[str, Any] = {"Erfc": (_erfc, [])}
            proto, _ = tf2onnx.convert.from_function(
                function, input_signature=specs, opset=ONNX_OPSET, custom_op_handlers=handlers
            )
            _hold_constants(proto, function.get_concrete_function())
            onnx.checker.check_model(proto)
    except Exception as error:
        # tf2onnx raises what its rewriters happen to raise: KeyError, ValueError, AttributeError.
        raise ExportError("operations that tf2onnx converts", _reason(error, model, signature), ELSEWHERE) from error
    onnx.save(proto, path)
    return Exported(path)


def _hold_constants(proto: Any, traced: Any) -> None:
    """Put tensors that a layer holds outside its weights into the file.

    tf2onnx 1.17 takes what a function captures for inputs, although their values are at hand: the mean of
    `keras.layers.Normalization(mean=[3.0, 1.0], variance=[2.0, 5.0])`, a `tf.constant` of a user's layer.
    """
    import onnx

    captured = {
        inner.name: outer for outer, inner in traced.graph.captures if outer.dtype not in (tf.resource, tf.variant)
    }
    used = {name for node in proto.graph.node for name in node.input}
    for entry in [entry for entry in proto.graph.input if entry.name in captured]:
        proto.graph.input.remove(entry)
        if entry.name in used:
            value = captured[entry.name].numpy()
            proto.graph.initializer.append(onnx.numpy_helper.from_array(value, entry.name))


def _erfc(context: Any, node: Any, name: str, _: Any) -> Any:
    """Write Erfc, which `gelu` is made of and which tf2onnx leaves as it is, as 1 - Erf."""
    import numpy as np

    dtype = np.float64 if context.get_dtype(node.input[0]) == 11 else np.float32  # 11 is ONNX's float64
    output, shape = node.output[0], context.get_shape(node.output[0])
    one = context.make_const(f"{name}_one", np.array(1, dtype))
    source = node.input[0]
    context.remove_node(node.name)
    erf = context.make_node("Erf", [source], name=f"{name}_erf", shapes=[shape], dtypes=[context.get_dtype(source)])
    kinds = [context.get_dtype(source)]
    return context.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=[output], shapes=[shape], dtypes=kinds
    )


def _openvino(model: Any, signature: Signature, path: Path) -> Exported:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "tensorflow", "export to OpenVINO") from error
    notes: tuple[str, ...] = ()
    try:
        with quiet():
            function, _ = serving_function(model, signature, None)
            converted = openvino.convert_model(function, share_weights=False)
    except Exception as error:  # noqa: BLE001 - frontends raise RuntimeError's children that have no public name
        first = _reason(error, model, signature)
        with tempfile.TemporaryDirectory() as folder:
            between = Path(folder) / "model.onnx"
            _onnx(model, signature, between)
            try:
                with quiet():
                    converted = openvino.convert_model(between, share_weights=False)
            except Exception as second:
                reason = _reason(second, model, signature)
                raise ExportError("operations that OpenVINO has", reason, ELSEWHERE) from second
        notes = (f"converted by way of ONNX: {first}",)
    openvino.save_model(_ordered(converted, signature), path, compress_to_fp16=False)
    return Exported(path, notes=notes)


def _ordered(converted: Any, signature: Signature) -> Any:
    """Return the model with one output, and its inputs named and in the order of the signature.

    Converting a `tf.function` keeps the ends of branches that lead nowhere (an Embedding's mask) as outputs.
    """
    import openvino

    output = next((o for o in converted.outputs if OUTPUT in o.get_names()), converted.outputs[0])
    parameters = []
    for name in signature.names:
        port = next((i for i in converted.inputs if name in {n.partition(":")[0] for n in i.get_names()}), None)
        if port is not None:  # an input that the model does not use may have been dropped
            port.get_tensor().set_names({name})
            parameters.append(port.get_node())
    output.get_tensor().set_names({OUTPUT})
    return openvino.Model([output], parameters, "model")


def _reason(error: BaseException, model: Any, signature: Signature) -> str:
    """Return what failed in a few words: the operations where the converter gives them, and the layers they are in."""
    text = str(error)
    found = re.findall(r"'tf\.(\w+)' op|No Op registered for (\w+)", text)
    operations = sorted({name for pair in found for name in pair if name})
    unconverted = re.search(r"No conversion rule found for operations: ([^\n]+)", text)
    if unconverted:
        operations = [name.strip() for name in unconverted.group(1).split(",")]
    if operations:
        traced = serving_function(model, signature, None)[0].get_concrete_function()
        told = ", ".join(operations[:4])
        layers = _layers_with(traced.graph.get_operations(), operations)
        return f"no conversion for {told}{f' (in {layers})' if layers else ''}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Check '", "FrontEnd API", "Exception from", "Model"))]
    return f"{type(error).__name__}: {(telling or lines or ['no message'])[0][:200]}"


def _layers_with(graph: Iterable[Any], kinds: Sequence[str]) -> str:
    """Return the scopes of a graph's operations of some kinds, which are paths of layers, a few of them."""
    scopes = {operation.name.rpartition("/")[0] for operation in graph if operation.type in kinds}
    return ", ".join(sorted(filter(None, scopes))[:2])


__all__ = ["OUTPUT", "SAVED_MODEL_SUFFIX", "convert_litert", "export", "in_float32", "serving_function"]
