"""Quantize: weights, and for int8 static also activations, in fewer bits: after training, or through it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from nbopt.draft import Context, Draft, Lowered
from nbopt.errors import FULL, DataError, ExportError, ModelError, NbOptError, OptionError
from nbopt.frameworks import Exported, Signature
from nbopt.options import option
from nbopt.planning import fine_tuning
from nbopt.runtimes import Runtime
from nbopt.technique import Technique
from nbopt.workload import Workload

LEAST_SHARE = 0.005
"""Share of weights in int8 below which there are only scales' zero points, and nothing was quantized."""

GROUPS = (16, 32, 64, 128, 256)

APPLIES = {
    "calibration": ("static", "qat"),
    "calibration_method": ("static", "qat"),
    "percentile": ("static", "qat"),
    "per_channel": ("static", "dynamic"),  # of qat: with one scale a tensor the grid depends on BatchNorm, folded later
    "group_size": ("weight_only",),
    "equalize": ("static", "qat"),
    "bias_correction": ("static", "qat"),
    "keep_float": ("static", "qat"),
    "io": ("static", "qat"),
    "epochs": ("qat",),
    "learning_rate": ("qat",),
}
"""The methods in which an option has an effect; given with another one it is refused, not ignored."""


@dataclass(frozen=True)
class Quantize(Technique):
    """Store and compute with fewer bits, in the runtime's own form.

    int8 static quantizes weights and activations; ranges come from a slice of train. int8 dynamic quantizes
    weights ahead and activations on the fly, which suits linear layers. int8 qat trains with the rounding in place
    (Jacob et al. 2018, https://arxiv.org/abs/1712.05877), for models that lose by being rounded afterwards; then it is
    static. weight_only leaves activations as they are: linear layers in int8, or in int4 with a scale for each group.
    float16 and bfloat16 halve the file.
    ONNX Runtime: QDQ nodes, MatMulNBits
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    OpenVINO: NNCF (https://docs.openvino.ai, post-training quantization, weight compression). LiteRT: its own
    converter, and the ai-edge-quantizer for weights alone. torch.compile: PT2E, by torchao. qat of tf_keras models is
    TF-MOT's `quantize_model` (https://www.tensorflow.org/model_optimization).
    """

    word: ClassVar[str] = "quantize"
    summary: ClassVar[str] = "fewer bits: a smaller file, and faster where the machine has the instructions"
    works_on_files: ClassVar[bool] = True

    dtype: str = option(
        "int8",
        "precision of the weights; int4 is for linear layers, weights only",
        choices=("int8", "int4", "float16", "bfloat16"),
    )
    method: str = option(
        "static",
        "static: activations too, with ranges from calibration; dynamic: activations on the fly; weight_only: "
        "activations stay as they are; qat: trained with the rounding in place, then static (int4: weight_only alone)",
        choices=("static", "dynamic", "weight_only", "qat"),
    )
    calibration: int = option(256, "rows of train that ranges are taken from", low=1, high=100_000, unit="rows")
    calibration_method: str = option(
        "minmax",
        "how a range is found: minmax takes the extremes; percentile cuts what lies beyond --percentile, which rescues "
        "the rest from a few outliers; entropy loses the least information (Migacz 2017, KL divergence)",
        choices=("minmax", "percentile", "entropy"),
    )
    percentile: float = option(
        99.99, "percent of values inside the range, for --calibration-method percentile", low=50, high=100
    )
    per_channel: bool = option(
        True,
        "a scale for each output channel of a weight, not one for all; linear layers whose channels are alike share "
        "one on ONNX Runtime all the same, where they are 13% faster so",
    )
    group_size: int = option(
        128,
        "inputs that share a scale in weight_only: fewer are more exact and larger; a layer whose width it does not "
        "divide goes to int8",
        choices=GROUPS,
    )
    equalize: bool = option(
        False,
        "move outliers of activations into the weights first (SmoothQuant, https://arxiv.org/abs/2211.10438); "
        "unasked only where int8 puts the outputs far off without and it halves that, which the result says",
    )
    bias_correction: bool = option(
        False, "shift biases by the mean error of each layer (NNCF fast bias correction, https://docs.openvino.ai)"
    )
    keep_float: str = option(
        "auto",
        "layers that stay float: names by commas; none; or auto: where --max-drop is given and int8 loses more on the "
        "selection rows, the fewest of the most sensitive layers, found by measuring",
    )
    io: str = option(
        "float32",
        "dtype of the inputs and outputs of a LiteRT file: int8 for microcontrollers without floats "
        "(https://ai.google.dev/edge/litert, full integer quantization)",
        choices=("float32", "int8"),
    )
    epochs: int = option(3, "passes over train in qat", low=1, high=10_000)
    learning_rate: float | None = option(
        None,
        "step size that qat starts from; none leaves what the recipe has, 0.001 at first; it falls to 0 along a "
        "cosine, unless schedule comes before with another",
        low=0.0,
        high=10.0,
        open_ends=True,
    )

    @property
    def how(self) -> str:
        """Return the method that is carried out: int4 is always weight_only, and half precisions have none."""
        if self.dtype == "int4":
            return "weight_only"
        return self.method if self.dtype == "int8" else ""

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with a step on the exported file; only qat trains, and so changes, a copy of the model.

        Raises:
            OptionError: An option is given that has no effect together with the others.
            DataError: There is nothing for qat to train on.
            ModelError: The model has no layer whose rounding can be trained.
        """
        self.check(context.workload)
        framework = context.workload.framework.name
        step = Quantizing(self, context.workload.framework.family)
        draft = draft.with_(lower=(*draft.lower, step), dtype=self.dtype)
        if self.how != "qat":
            return draft
        lowering = importlib.import_module(f"nbopt.techniques._quantize.rounding_{framework}")
        if not lowering.IN_PLACE and (draft.hold or draft.pace):
            raise ModelError(
                f"qat in a recipe of its own, for a model of {framework}",
                "masks that must hold while it trains",
                "prune and quantize --method static in one recipe, or prune first and bind run.model for qat",
            )
        model = draft.model
        if model is context.workload.model:
            model = context.workload.framework.clone(model)
        model, finish, notes = lowering.with_rounding(model, context, self)
        plan = fine_tuning(draft, self.epochs, self.learning_rate)
        return draft.with_(model=model, plan=plan, finish=(*draft.finish, finish)).noted(*notes)

    def check(self, workload: Workload) -> None:
        """Refuse options that have no effect together, and qat without anything to train on."""
        if self.dtype == "int4" and self.method not in ("static", "weight_only"):
            raise OptionError("int4 by weight_only", f"--method {self.method}", "--dtype int8, or leave --method out")
        if not self.how and self.method != "static":
            raise OptionError(f"no --method with --dtype {self.dtype}", f"--method {self.method}", "leave one out")
        for spec in dataclasses.fields(self):
            methods = APPLIES.get(spec.name)
            if methods is None or getattr(self, spec.name) == spec.default or self.how in methods:
                continue
            flag = f"--{spec.name.replace('_', '-')}"
            which = f"--dtype {self.dtype}" if self.dtype != "int8" else f"--method {self.method}"
            raise OptionError(
                f"{flag} together with --method {' or '.join(methods)}", f"{which}, where it has no effect", "leave it"
            )
        if not any(part.strip() for part in self.keep_float.split(",")):
            raise OptionError("--keep-float with names by commas, auto or none", repr(self.keep_float), "none")
        if self.percentile != 99.99 and self.calibration_method != "percentile":
            raise OptionError(
                "--percentile together with --calibration-method percentile",
                f"--calibration-method {self.calibration_method}, where it has no effect",
                f"--calibration-method percentile --percentile {self.percentile:g}",
            )
        if self.how == "qat" and workload.train is None:
            raise DataError(
                "train data, which qat trains on",
                "none",
                "Workload(..., train=...), --train train_dl, or --method static",
            )

    @property
    def label(self) -> str:
        """Return "quantize int8", and the method where it matters."""
        if self.dtype == "int4":
            return f"quantize int4 groups of {self.group_size}"
        return f"quantize {self.dtype}" + (f" {self.method.replace('_', ' ')}" if self.dtype == "int8" else "")


def int8_share(elements: Mapping[str, int]) -> float:
    """Return the share of weights that are whole numbers of 8 bits or fewer, 0 to 1.

    Args:
        elements: How many a file has in each dtype.
    """
    return sum(elements.get(name, 0) for name in ("int8", "uint8", "int4", "uint4")) / max(sum(elements.values()), 1)


@dataclass(frozen=True)
class Quantizing:
    """Be the step on the file: a module `_quantize/FORM.py` for each form of artifact does the work.

    Args:
        options: What is asked for.
        framework: "torch" or "keras", which exports the model.
    """

    options: Quantize
    framework: str

    def refuses(self, runtime: Runtime) -> str:
        """Return why there is no way for this runtime, "" where there is."""
        module = f"nbopt.techniques._quantize.{runtime.form}"
        if find_spec(module) is None:
            return f"{runtime.title} has no {self.options.dtype} of its own"
        refused: str = importlib.import_module(module).refuses(self.options, runtime, self.framework)
        return f"{runtime.title}: {refused}" if refused else ""

    def __call__(
        self, model: Any, signature: Signature, source: Exported, runtime: Runtime, folder: Path, context: Context
    ) -> Lowered:
        """Write the quantized artifact.

        Raises:
            ExportError: The quantizer refuses the model.
        """
        options = self.options
        module = importlib.import_module(f"nbopt.techniques._quantize.{runtime.form}")
        try:
            lowered: Lowered = module.lower(model, signature, source, runtime, folder, context, options)
        except NbOptError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise  # no fault of the model's: whoever keeps the disk says so
            # Quantizers raise whatever the graph makes them stumble over, types of their own too; the row shows it.
            text = (str(error).strip().splitlines() or [""])[0]
            raise ExportError(
                f"a model that {runtime.title} can quantize to {options.dtype}",
                f"{type(error).__name__}: {text}"[:300],
                "--method dynamic, --dtype float16, or another runtime",
            ) from error
        share = int8_share(runtime.weight_precisions(lowered.exported.path))
        if lowered.precision == "int8" and share < LEAST_SHARE:
            dtype = context.workload.framework.float_dtype(context.workload.model)
            other = "--dtype float16" if options.how == "static" else "--method static, or --dtype float16"
            raise ExportError(
                f"weights that {runtime.title} quantizes",
                f"{options.how.replace('_', ' ')} {options.dtype} changed no weight of this {dtype} model",
                other if dtype == "float32" else f"bind it in float32: quantizers leave {dtype} weights as they are",
            )
        return lowered
