"""LiteRT, the interpreter of .tflite files, with its XNNPACK kernels."""

from __future__ import annotations

import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nbopt.batches import Inputs, identifiers, rows_of
from nbopt.errors import ArtifactError, DataError, ExportError, MissingExtra
from nbopt.runtimes import Layer, Manifest, Runtime, Session


class LiteRtSession(Session):
    """Run an interpreter. Tensors are allocated again only when a shape changes."""

    def __init__(self, interpreter: Any, manifest: Manifest) -> None:
        self.interpreter = interpreter
        details = interpreter.get_input_details()
        names = [_plain(detail["name"]) for detail in details]
        if not manifest.inputs:
            manifest = dataclasses.replace(manifest, inputs=tuple(sorted(names)))
        self.manifest = manifest
        self._inputs = _matched(names, details, manifest)
        self._output = interpreter.get_output_details()[0]
        self._shapes: dict[str, tuple[int, ...]] = {}

    def _run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        named = self.named(inputs)
        missing = [name for name in self._inputs if name not in named]
        if missing:
            raise DataError(f"inputs {', '.join(self._inputs)}", f"{', '.join(named)}")
        arrays = {name: np.asarray(named[name]) for name in self._inputs}
        shapes = {name: array.shape for name, array in arrays.items()}
        try:
            if shapes != self._shapes:
                self._shapes = {}
                for name, detail in self._inputs.items():
                    self.interpreter.resize_tensor_input(detail["index"], shapes[name], strict=True)
                self.interpreter.allocate_tensors()
                self._shapes = shapes
            for name, detail in self._inputs.items():
                self.interpreter.set_tensor(detail["index"], _quantized(arrays[name], detail))
            self.interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            self._shapes = {}
            text = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise DataError("inputs of the shapes that the model takes", f"{text}: {_first_line(error)}") from error
        return _dequantized(self.interpreter.get_tensor(self._output["index"]), self._output)

    def _release(self) -> None:
        """Give back the interpreter's memory and threads."""
        self.interpreter = None


class LiteRt(Runtime):
    """Run .tflite files on CPU."""

    name: ClassVar[str] = "litert"
    title: ClassVar[str] = "LiteRT"
    form: ClassVar[str] = "litert"
    suffix: ClassVar[str] = ".tflite"
    frameworks: ClassVar[tuple[str, ...]] = ("keras", "torch")
    packages: ClassVar[dict[str, str]] = {"ai_edge_litert": "tensorflow"}

    def unavailable(self, framework: str = "") -> str:
        """Return why it can't be used here; torch models also need a converter that nbopt's extras leave out."""
        reason = super().unavailable(framework)
        if not reason and framework == "torch" and find_spec("litert_torch") is None:
            return MissingExtra("litert_torch", "litert-torch", "LiteRT for torch models").one_line
        return reason

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> LiteRtSession:
        """Load a model with the default kernels, and allocate it for the batch that the file was written for."""
        from nbopt.frameworks._quiet import quiet

        with quiet():
            from ai_edge_litert.interpreter import Interpreter

            try:
                interpreter = Interpreter(model_path=str(path), num_threads=threads)
            except ValueError as error:
                raise ArtifactError(f"a LiteRT model in {path.name}", _first_line(error), "export it again") from error
            try:
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise ExportError("operations that LiteRT has on CPU", _first_line(error)) from error
        return LiteRtSession(interpreter, manifest)

    def layers(self, path: Path, session: LiteRtSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the flatbuffer, with the arithmetic of the kernels that its types select."""
        from nbopt.frameworks._quiet import quiet
        from nbopt.runtimes._litert_layers import executed_layers

        with quiet():
            from ai_edge_litert.interpreter import Interpreter, OpResolverType

            twin = Interpreter(
                model_path=str(path),
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            )
            LiteRtSession(twin, session.manifest).run(inputs)
        return executed_layers(path.read_bytes(), twin, session.manifest.batch or rows_of(inputs))

    def leftovers(self, path: Path, session: LiteRtSession) -> tuple[str, ...]:
        """Return masks and fake quantizers in the file."""
        from nbopt.runtimes._litert_layers import left_in_file

        return left_in_file(path.read_bytes())

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return the elements of all constant tensors by dtype, read from the flatbuffer."""
        from ai_edge_litert import schema_py_generated as schema

        kinds = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
        counts: dict[str, int] = {}
        for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
            for tensor in map(graph.Tensors, range(graph.TensorsLength())):
                # Offset and size stand for data behind the flatbuffer, which files above 2 GB have.
                buffer = model.Buffers(tensor.Buffer())
                if buffer.DataLength() or buffer.Size():
                    shape = tensor.ShapeAsNumpy()
                    name = kinds[tensor.Type()].lower()
                    size = int(np.prod(shape)) if isinstance(shape, np.ndarray) else 1
                    counts[name] = counts.get(name, 0) + size
        return {name: count for name, count in counts.items() if name not in ("int64", "bool", "string")}


def _plain(name: str) -> str:
    """Return an input's name without what converters put around it: "serving_default_x:0" is "x"."""
    return re.sub(r":\d+$", "", name.removeprefix("serving_default_"))


def _matched(names: list[str], details: list[dict[str, Any]], manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the file's inputs by the manifest's names; inputs that the model does not use are not in the file.

    Raises:
        ArtifactError: An input of the file is none of the manifest's.
    """
    matched: dict[str, dict[str, Any]] = {}
    known = dict(zip(identifiers(manifest.inputs), manifest.inputs, strict=True))
    for name, detail in zip(names, details, strict=True):
        wanted = known.get(name, name if name in manifest.inputs else None)
        position = re.fullmatch(r"(?:args|input|inputs)_(\d+)", name)
        if wanted is None and position and int(position.group(1)) < len(manifest.inputs):
            wanted = manifest.inputs[int(position.group(1))]
        if wanted is None and len(details) == len(manifest.inputs) == 1:
            wanted = manifest.inputs[0]
        if wanted is None:
            raise ArtifactError(f"inputs {', '.join(manifest.inputs)}", f"{', '.join(names)} in the file")
        matched[wanted] = detail
    return matched


def _quantized(array: np.ndarray[Any, Any], detail: dict[str, Any]) -> np.ndarray[Any, Any]:
    dtype = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if scale and array.dtype.kind == "f" and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        array = np.clip(np.round(array / scale) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(array, dtype=dtype)


def _dequantized(array: np.ndarray[Any, Any], detail: dict[str, Any]) -> np.ndarray[Any, Any]:
    scale, zero_point = detail["quantization"]
    if scale and array.dtype.kind in "iu":
        return ((array.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


RUNTIME = LiteRt()
