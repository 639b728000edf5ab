"""Quantize: weights, and for int8 static also activations, in fewer bits, after training."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from nbopt.errors import ExportError, NbOptError
from nbopt.frameworks import Exported, Signature
from nbopt.runtimes import Runtime
from nbopt.technique import Context, Draft, Lowered, Technique, option

LEAST_SHARE = 0.005
"""Share of weights in int8 below which there are only scales' zero points, and nothing was quantized."""


@dataclass(frozen=True)
class Quantize(Technique):
    """Store and compute with fewer bits, by post-training quantization in the runtime's own form.

    int8 static quantizes weights and activations; ranges come from a slice of train. int8 dynamic quantizes
    weights ahead and activations on the fly, which suits linear layers. float16 and bfloat16 halve the file.
    ONNX Runtime: QDQ nodes (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    OpenVINO: NNCF (https://docs.openvino.ai, post-training quantization). LiteRT: its own converters.
    """

    word: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "fewer bits: a smaller file, and faster where the machine has the instructions"

    dtype: str = option("int8", "precision of the weights", choices=("int8", "float16", "bfloat16"))
    method: str = option(
        "static",
        "static: activations too, with ranges from calibration; dynamic: activations on the fly (int8 only)",
        choices=("static", "dynamic"),
    )
    calibration: int = option(256, "rows of train that ranges are taken from", low=1, high=100_000, unit="rows")
    per_channel: bool = option(True, "a scale for each output channel of a weight, not one for all")

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with a step on the exported file; the model itself stays as it is."""
        return draft.with_(lower=(*draft.lower, Quantizing(self, context.workload.framework.name)), dtype=self.dtype)

    @property
    def label(self) -> str:
        """Return "quantize int8", and the method where it matters."""
        return f"quantize {self.dtype}" + (f" {self.method}" if self.dtype == "int8" else "")


@dataclass(frozen=True)
class Quantizing:
    """Be the step on the file: a module `_quantize_FORM` for each form of artifact does the work.

    Args:
        options: What is asked for.
        framework: "torch" or "keras".
    """

    options: Quantize
    framework: str

    def refuses(self, runtime: Runtime) -> str:
        """Return why there is no way for this runtime, "" where there is."""
        module = f"nbopt.techniques._quantize_{runtime.form}"
        if find_spec(module) is None:
            return f"{runtime.title} has no post-training {self.options.dtype} of its own"
        refused: str = importlib.import_module(module).refuses(self.options)
        return f"{runtime.title}: {refused}" if refused else ""

    def __call__(
        self, model: Any, signature: Signature, source: Exported, runtime: Runtime, folder: Path, context: Context
    ) -> Lowered:
        """Write the quantized artifact.

        Raises:
            ExportError: The quantizer refuses the model.
        """
        module = importlib.import_module(f"nbopt.techniques._quantize_{runtime.form}")
        try:
            lowered: Lowered = module.lower(model, signature, source, runtime, folder, context, self.options)
        except NbOptError:
            raise
        except Exception as error:
            # Quantizers raise whatever the graph makes them stumble over, types of their own too; the row shows it.
            text = (str(error).strip().splitlines() or [""])[0]
            raise ExportError(
                f"a model that {runtime.title} can quantize to {self.options.dtype}",
                f"{type(error).__name__}: {text}"[:300],
                "--method dynamic, --dtype float16, or another runtime",
            ) from error
        weights = runtime.weight_precisions(lowered.exported.path)
        share = (weights.get("int8", 0) + weights.get("uint8", 0)) / max(sum(weights.values()), 1)
        if lowered.precision == "int8" and share < LEAST_SHARE:
            dtype = context.workload.framework.float_dtype(context.workload.model)
            other = "--method static, or --dtype float16" if self.options.method == "dynamic" else "--dtype float16"
            raise ExportError(
                f"weights that {runtime.title} quantizes",
                f"none: {self.options.method} int8 changed no weight of this {dtype} model",
                other if dtype == "float32" else f"bind it in float32: quantizers leave {dtype} weights as they are",
            )
        return lowered
