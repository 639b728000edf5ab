"""ONNX Runtime on its CPU provider."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nbopt.batches import Inputs, rows_of
from nbopt.errors import ArtifactError, DataError, ExportError
from nbopt.runtimes import Layer, Manifest, Runtime, Session

if TYPE_CHECKING:
    import onnxruntime

PROTOBUF_BYTES = 1 << 30  # protobuf holds 2 GiB at most
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxSession(Session):
    """Run an ONNX graph; inputs that the graph does not use are left out."""

    def __init__(self, session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
        inputs = session.get_inputs()
        if not manifest.inputs:
            manifest = dataclasses.replace(manifest, inputs=tuple(i.name for i in inputs))
        if not manifest.dtypes:
            manifest = dataclasses.replace(manifest, dtypes=tuple(DTYPES.get(i.type, "") for i in inputs))
        self.manifest = manifest
        self.session = session
        self._wanted = {i.name: DTYPES.get(i.type, "") for i in inputs}

    def _run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        named = self.named(inputs)
        missing = [name for name in self._wanted if name not in named]
        if missing:
            raise DataError(f"inputs {', '.join(self._wanted)}", f"{', '.join(named)}")
        feed = {name: np.ascontiguousarray(named[name], dtype=dtype or None) for name, dtype in self._wanted.items()}
        try:
            output = self.session.run(None, feed)[0]
        except Exception as error:
            # onnxruntime's own exception types can't be imported by name in all versions.
            shapes = ", ".join(f"{name} {value.shape}" for name, value in feed.items())
            raise DataError("inputs of the shapes that the graph takes", f"{shapes}: {_first_line(error)}") from error
        array = np.asarray(output)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _release(self) -> None:
        """End the session's threads."""
        del self.session


class OnnxRuntime(Runtime):
    """Run .onnx files."""

    name: ClassVar[str] = "onnxruntime"
    title: ClassVar[str] = "ONNX Runtime"
    form: ClassVar[str] = "onnx"
    suffix: ClassVar[str] = ".onnx"
    frameworks: ClassVar[tuple[str, ...]] = ("torch", "keras")
    packages: ClassVar[dict[str, str]] = {"onnxruntime": "torch"}

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> OnnxSession:
        """Load a graph, all optimizations on.

        Threads don't spin between inferences: a session that spins takes the cores of whatever is measured
        next to it (and of the user's own work).
        """
        import onnxruntime

        options = _options(threads)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            text = _first_line(error)
            if "NOT_IMPLEMENTED" in text or "NotImplemented" in type(error).__name__:
                raise ExportError("operations that ONNX Runtime has on CPU", text, "try --runtime openvino") from error
            raise ArtifactError(f"an ONNX model in {path.name}", text, "export it again") from error
        return OnnxSession(session, manifest)

    def layers(self, path: Path, session: OnnxSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the graph that ONNX Runtime made of the file, from one profiled inference."""
        import onnx
        import onnxruntime

        from nbopt.runtimes._onnx_layers import executed_layers

        options = _options(1)
        options.enable_profiling = True
        with tempfile.TemporaryDirectory(prefix="nbopt-audit-") as folder:
            executed = Path(folder) / "executed.onnx"
            options.profile_file_prefix = str(Path(folder) / "profile")
            options.optimized_model_filepath = str(executed)
            beside = path.with_name(f"{path.name}.data")
            if sum(file.stat().st_size for file in (path, beside) if file.is_file()) > PROTOBUF_BYTES:
                entry = "session.optimized_model_external_initializers_file_name"
                options.add_session_config_entry(entry, f"{executed.name}.data")
            # Blocked layouts pad weights with zeros and rename them; the precision is the same without.
            profiled = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["NchwcTransformer"]
            )
            OnnxSession(profiled, session.manifest).run(inputs)
            events = json.loads(Path(profiled.end_profiling()).read_text())
            graph = onnx.load(executed).graph
        file = onnx.load(path, load_external_data=False).graph
        return executed_layers(file, graph, events, session.manifest.batch or rows_of(inputs))

    def leftovers(self, path: Path, session: OnnxSession) -> tuple[str, ...]:
        """Return masks and fake quantizers in the file; QDQ pairs are how the format says int8, and not left over."""
        import onnx

        from nbopt.runtimes._onnx_layers import left_in_file

        return left_in_file(onnx.load(path, load_external_data=False).graph)

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return the elements of all initializers by dtype, shapes and other int64 constants left out."""
        import onnx

        plain = {"FLOAT": "float32", "DOUBLE": "float64"}
        names = {v: plain.get(k, k.lower()) for k, v in onnx.TensorProto.DataType.items()}
        counts: dict[str, int] = {}
        graphs = [onnx.load(path, load_external_data=False).graph]
        while graphs:
            graph = graphs.pop()
            for node in graph.node:
                graphs += [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
            for tensor in graph.initializer:
                size = int(np.prod(tensor.dims)) if tensor.dims else 1
                name = names.get(tensor.data_type, "?")
                if name not in ("int64", "bool"):
                    counts[name] = counts.get(name, 0) + size
        return counts


def _options(threads: int) -> onnxruntime.SessionOptions:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


RUNTIME = OnnxRuntime()
