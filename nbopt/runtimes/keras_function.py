"""A Keras model as a compiled TensorFlow function: what a careful user runs today."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Inputs, leaves, map_leaves, rows_of
from nbopt.errors import ArtifactError, MissingExtra, NbOptWarning
from nbopt.runtimes import Layer, Manifest, Runtime, Session


class KerasSession(Session):
    """Run a loaded Keras model, or the serving function of a SavedModel, as one TensorFlow graph."""

    def __init__(self, function: Any, manifest: Manifest, *, served: bool, model: Any = None) -> None:
        self.manifest = manifest
        self.model = model
        self.function = function
        self.served = served

    def _run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        import tensorflow as tf

        if self.served:
            named = self.named(inputs)
            result = self.function(**{name: tf.convert_to_tensor(leaf) for name, leaf in named.items()})["output"]
        elif isinstance(inputs, dict):
            result = self.function({name: tf.convert_to_tensor(leaf) for name, leaf in inputs.items()})
        else:
            tensors = [tf.convert_to_tensor(leaf) for leaf in leaves(inputs)]
            result = self.function(tensors[0] if len(tensors) == 1 else tensors)
        output = to_numpy(result)
        return output.astype(np.float32) if output.dtype.name in ("bfloat16", "float16") else output

    def traced(self, inputs: Inputs) -> tuple[Any, list[Any]]:
        """Return the function traced for exactly these inputs, and its inputs where it had to be frozen for that."""
        import tensorflow as tf

        from nbopt.frameworks._quiet import quiet
        from nbopt.runtimes._keras_layers import frozen

        with quiet():
            if not self.served:
                specs = map_leaves(lambda leaf: tf.TensorSpec(np.shape(leaf), np.asarray(leaf).dtype), inputs)
                ordered = specs if isinstance(specs, dict) or len(specs) > 1 else specs[0]
                function = tf.function(self.function.python_function, autograph=False)
                return function.get_concrete_function(list(ordered) if isinstance(ordered, tuple) else ordered), []
            served = self.function
            named = {name: tf.convert_to_tensor(leaf) for name, leaf in self.named(inputs).items()}

            def serve(**given: Any) -> Any:
                return served(**given)["output"]

            specs = {name: tf.TensorSpec(leaf.shape, leaf.dtype, name=name) for name, leaf in named.items()}
            function = frozen(tf.function(serve, autograph=False).get_concrete_function(**specs))
            return function, [named[tensor.op.name] for tensor in function.inputs]

    def _release(self) -> None:
        """Forget the model."""
        self.function = None


class KerasFunction(Runtime):
    """Run .keras files, and zipped SavedModels of models with classes of their own.

    `model.predict` costs tens of milliseconds a call whatever the model: to be faster than that proves nothing.
    """

    name: ClassVar[str] = "keras"
    title: ClassVar[str] = "Keras function"
    form: ClassVar[str] = "keras"
    suffix: ClassVar[str] = ".keras"
    frameworks: ClassVar[tuple[str, ...]] = ("keras",)
    packages: ClassVar[dict[str, str]] = {"tensorflow": "tensorflow", "keras": "tensorflow"}
    needs_framework: ClassVar[bool] = True

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> KerasSession:
        """Load the model and trace it on first use; threads must be set before TensorFlow starts them."""
        from nbopt.frameworks._primary import primary_output
        from nbopt.frameworks._quiet import quiet

        with quiet():
            import keras
            import tensorflow as tf

        _set_threads(tf, threads)
        try:
            if _is_saved_model(path):
                with quiet():
                    return _load_saved_model(tf, path, manifest)
            with quiet():
                model = _reader(path, keras).saving.load_model(path, compile=False)
        except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise ArtifactError(f"a Keras model in {path.name}", reason, "export it again") from error
        if not manifest.inputs:
            manifest = dataclasses.replace(manifest, inputs=tuple(tensor.name for tensor in model.inputs or ()))

        def forward(arguments: Any) -> Any:
            return primary_output(model(arguments, training=False))

        tf.get_logger().addFilter(_no_advice)  # the same one again is added once

        return KerasSession(
            tf.function(forward, autograph=False, reduce_retracing=True), manifest, served=False, model=model
        )

    def layers(self, path: Path, session: KerasSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the function's graph, traced for one row."""
        from nbopt.runtimes._keras_layers import executed_layers

        function, given = session.traced(inputs)
        return executed_layers(function, session.model, rows_of(inputs), given)

    def leftovers(self, path: Path, session: KerasSession) -> tuple[str, ...]:
        """Return masks among the variables."""
        from nbopt.runtimes._keras_layers import left_in_model

        return left_in_model(session.function, session.model)

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return the elements of all kept variables by dtype, without the state of random generators."""
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
            archive.extractall(folder)
            weights = Path(folder) / "model.weights.h5"
            sizes = _in_h5(weights) if weights.is_file() else _in_checkpoint(Path(folder))
        counts: dict[str, int] = {}
        for dtype, size in sizes:
            if dtype not in ("uint32", "int64", "string"):
                counts[dtype] = counts.get(dtype, 0) + size
        return counts


def _is_saved_model(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "config.json" not in archive.namelist()


def _reader(path: Path, keras: Any) -> Any:
    """Return the module that reads a .keras file: both Keras 3 and tf_keras write them, each of its own layers.

    Raises:
        MissingExtra: It is of tf_keras, which is not installed.
    """
    with zipfile.ZipFile(path) as archive:
        written = json.loads(archive.read("metadata.json")).get("keras_version", "3")
    if not str(written).startswith("2."):
        return keras
    try:
        import tf_keras
    except ImportError as error:
        raise MissingExtra("tf_keras", "tf-keras", f"{path.name}, a model of Keras 2") from error
    return tf_keras


def _no_advice(record: logging.LogRecord) -> bool:
    """Drop TensorFlow's advice on retracing for the functions made here: each artifact must be traced once."""
    text = record.getMessage()
    return not ("tf.function retracing" in text and "KerasFunction.load" in text)


def _in_h5(path: Path) -> list[tuple[str, int]]:
    import h5py

    found: list[tuple[str, int]] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            found.append((item.dtype.name, int(item.size)))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def _in_checkpoint(folder: Path) -> list[tuple[str, int]]:
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    dtypes, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    return [(dtypes[name].name, int(np.prod(shape))) for name, shape in shapes.items()]


def _load_saved_model(tf: Any, path: Path, manifest: Manifest) -> KerasSession:
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        loaded = tf.saved_model.load(folder)
    function = loaded.signatures["serving_default"]
    # The signature's function holds its variables only weakly.
    function.nbopt_owner = loaded
    if not manifest.inputs:
        names = tuple(function.structured_input_signature[1])
        manifest = dataclasses.replace(manifest, inputs=names)
    return KerasSession(function, manifest, served=True)


def _set_threads(tf: Any, threads: int) -> None:
    config = tf.config.threading
    asked = {"intra": threads, "inter": 1}
    current = {
        "intra": config.get_intra_op_parallelism_threads(),
        "inter": config.get_inter_op_parallelism_threads(),
    }
    if current == asked:
        return
    try:
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # TensorFlow already runs in this process, as in a notebook that loads an artifact to predict with it.
        warnings.warn(
            f"TensorFlow has started: {threads} threads were asked for, and it keeps the ones it has",
            NbOptWarning,
            stacklevel=3,
        )


RUNTIME = KerasFunction()
