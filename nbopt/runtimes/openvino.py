"""OpenVINO on CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree as ET

import numpy as np

from nbopt.batches import Inputs, rows_of
from nbopt.errors import ArtifactError, DataError, ExportError
from nbopt.runtimes import Layer, Manifest, Runtime, Session
from nbopt.runtimes._layer_parts import OPENVINO_TYPES, masks_among

PRECISION_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "f32"}
"""What layers that are float in the file execute in. OpenVINO takes bf16 by itself on CPUs that have it: a baseline
in bf16 would be neither the user's model nor comparable, so float32 is asked for by name."""


class OpenVinoSession(Session):
    """Run a compiled OpenVINO model; inputs that it does not use are left out."""

    def __init__(self, compiled: Any, manifest: Manifest) -> None:
        if not manifest.inputs:
            manifest = dataclasses.replace(manifest, inputs=tuple(p.get_any_name() for p in compiled.inputs))
        self.manifest = manifest
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._ports: list[tuple[str, Any, Any]] = []
        for index, port in enumerate(compiled.inputs):
            names = port.get_names()
            name = next((n for n in manifest.inputs if n in names), None)
            if name is None:
                name = manifest.inputs[index] if len(manifest.inputs) > index else port.get_any_name()
            self._ports.append((name, index, port.get_element_type().to_dtype()))

    def _run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        named = self.named(inputs)
        missing = [name for name, _, _ in self._ports if name not in named]
        if missing:
            raise DataError(f"inputs {', '.join(name for name, _, _ in self._ports)}", f"{', '.join(named)}")
        feed = {index: np.ascontiguousarray(named[name], dtype=dtype) for name, index, dtype in self._ports}
        try:
            result = self._request.infer(feed, share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {np.shape(named[name])}" for name, _, _ in self._ports)
            raise DataError("inputs of the shapes that the model takes", f"{shapes}: {_reason(error)}") from error
        array = np.asarray(result[0])
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _release(self) -> None:
        """Give back the compiled model."""
        del self._request, self.compiled


class OpenVino(Runtime):
    """Run OpenVINO IR (.xml with its .bin)."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"
    form: ClassVar[str] = "openvino"
    suffix: ClassVar[str] = ".xml"
    frameworks: ClassVar[tuple[str, ...]] = ("torch", "keras")
    packages: ClassVar[dict[str, str]] = {"openvino": "torch"}

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> OpenVinoSession:
        """Compile a model for single-stream latency in the precision that the manifest names."""
        import openvino

        core = openvino.Core()
        if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
            raise ArtifactError(
                f"the weights of {path.name} beside it", f"no {path.with_suffix('.bin').name}", "copy both files"
            )
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise ArtifactError(f"an OpenVINO model in {path.name}", _reason(error), "export it again") from error
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": PRECISION_HINTS.get(manifest.precision, "f32"),
        }
        try:
            compiled = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise ExportError("operations that OpenVINO has on CPU", _reason(error)) from error
        return OpenVinoSession(compiled, manifest)

    def layers(self, path: Path, session: OpenVinoSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the file, each with the precision of the kernel that the plugin compiled for it."""
        import openvino

        from nbopt.runtimes._openvino_layers import executed_layers

        session.run(inputs)  # the executed graph has the shapes of the last inference
        model = openvino.Core().read_model(path)
        rows = session.manifest.batch or rows_of(inputs)
        named = session.named(inputs)
        model.reshape({model.inputs[i]: [rows, *named[name].shape[1:]] for name, i, _ in session._ports})
        return executed_layers(model, session.compiled, rows)

    def leftovers(self, path: Path, session: OpenVinoSession) -> tuple[str, ...]:
        """Return masks among the constants; FakeQuantize is how the format says int8, and not left over."""
        names = (e.get("name", "") for _, e in ET.iterparse(path) if e.tag == "layer" and e.get("type") == "Const")
        return masks_among(names)

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return the elements of all constants by dtype, shapes and other int64 constants left out."""
        counts: dict[str, int] = {}
        for _, element in ET.iterparse(path):
            if element.tag != "layer" or element.get("type") != "Const":
                continue
            data = element.find("data")
            if data is None:
                continue
            name = OPENVINO_TYPES.get(data.get("element_type", ""), data.get("element_type", "?"))
            shape = [int(size) for size in (data.get("shape") or "").split(",") if size.strip()]
            if name not in ("int64", "int32", "boolean"):
                counts[name] = counts.get(name, 0) + int(np.prod(shape))
        return counts


def _reason(error: BaseException) -> str:
    """Return the last telling line: OpenVINO's messages begin with places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (telling or lines or [type(error).__name__])[0][:300]


RUNTIME = OpenVino()
