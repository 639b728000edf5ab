"""TensorRT on an NVIDIA GPU, through ONNX Runtime's provider for it."""

from __future__ import annotations

import ctypes.util
import dataclasses
from pathlib import Path
from typing import ClassVar

from nbopt.batches import Inputs
from nbopt.errors import ExportError
from nbopt.runtimes import UNKNOWN, Layer, Manifest
from nbopt.runtimes.onnxruntime import OnnxRuntime, OnnxSession, _first_line, _options

PROVIDER = "TensorrtExecutionProvider"


class TensorRt(OnnxRuntime):
    """Run .onnx files as TensorRT builds them; int8 by the QDQ nodes in the file.

    Not among the defaults: building an engine takes from seconds to minutes for each model and batch size.
    https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    """

    name: ClassVar[str] = "tensorrt"
    title: ClassVar[str] = "TensorRT"
    packages: ClassVar[dict[str, str]] = {"onnxruntime": "torch"}
    by_default: ClassVar[bool] = False
    symmetric_int8: ClassVar[bool] = True
    half_kernels: ClassVar[bool] = True

    def unavailable(self, framework: str = "") -> str:
        """Return what is missing, "" where it can be used: a GPU's driver, the provider, TensorRT's own library."""
        reason = super().unavailable(framework)
        if reason:
            return reason
        if ctypes.util.find_library("cuda") is None:
            return "TensorRT needs an NVIDIA GPU: no driver (libcuda) was found on this machine"
        import onnxruntime

        if PROVIDER not in onnxruntime.get_available_providers():
            return "this onnxruntime has no TensorRT provider: pip install onnxruntime-gpu in place of onnxruntime"
        if ctypes.util.find_library("nvinfer") is None:
            return "TensorRT itself (libnvinfer) was not found: pip install tensorrt, its folder on the library path"
        return ""

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> OnnxSession:
        """Build the engine, in the precision that the manifest names.

        Raises:
            ExportError: TensorRT does not take the graph. It never falls back to the CPU in silence.
        """
        import onnxruntime

        about = {"trt_fp16_enable": manifest.precision == "float16", "trt_int8_enable": manifest.precision == "int8"}
        providers = [(PROVIDER, about), "CUDAExecutionProvider"]
        options = _options(threads)
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            # onnxruntime's own exception types can't be imported by name in all versions.
            raise ExportError("operations that TensorRT has", _first_line(error), "--runtime onnxruntime") from error
        if PROVIDER not in session.get_providers():
            raise ExportError("a session on TensorRT", f"one on {', '.join(session.get_providers())}")
        return OnnxSession(session, manifest)

    def layers(self, path: Path, session: OnnxSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the file; what an engine computes in it does not tell."""
        note = "TensorRT chooses a kernel for each layer and does not tell which"
        return tuple(
            dataclasses.replace(layer, compute_dtype=UNKNOWN, note=note)
            for layer in super().layers(path, session, inputs)
        )


RUNTIME = TensorRt()
