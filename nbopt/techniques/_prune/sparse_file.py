"""A step on the file: zeros left out of a .tflite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbopt.draft import Context, Draft, Lowered
from nbopt.errors import ExportError, MissingExtra, OptionError
from nbopt.frameworks import Exported, Signature
from nbopt.runtimes import Runtime


class SparseFile:
    """Store zeros of weights as compressed rows, where the runtime's file can hold that: LiteRT's alone.

    By the pass behind `tf.lite.Optimize.EXPERIMENTAL_SPARSITY`. LiteRT is not faster for it: against the same zeros
    stored, on 2 cores, one row, paired, two layers of 1,024 units were 1.01 times as fast at half zeros and 0.98 at
    nine tenths; four 1x1 convolutions of 128 channels, for which XNNPACK has sparse kernels, 1.00 and 0.99. Outputs
    are equal.
    """

    def refuses(self, runtime: Runtime) -> str:
        """Return "": other runtimes get their file as it is, with a note."""
        return ""

    def __call__(
        self, model: Any, signature: Signature, source: Exported, runtime: Runtime, folder: Path, context: Context
    ) -> Lowered:
        """Write the file anew.

        Raises:
            ExportError: TensorFlow's pass fails on it, or its weights are quantized.
            MissingExtra: TensorFlow is not installed, as beside a torch model.
        """
        kinds = set(runtime.weight_precisions(source.path)) & {"int8", "uint8", "int4", "float16", "bfloat16"}
        if kinds:
            # LiteRT 2.3 does not load such a file: "failed to delegate FULLY_CONNECTED ... (TfLiteXNNPackDelegate)".
            raise ExportError(
                "float32 weights for --sparse-file", f"weights in {', '.join(sorted(kinds))}", "leave --sparse-file out"
            )
        if runtime.form != "litert":
            return Lowered(source, "float32", (f"--sparse-file: files of {runtime.title} hold zeros as they are",))
        try:
            from tensorflow.lite.python.convert import mlir_sparsify
        except ImportError as error:
            raise MissingExtra("tensorflow", "tensorflow", "--sparse-file") from error
        from nbopt.frameworks._quiet import quiet

        dense = source.path.read_bytes()
        try:
            with quiet():
                packed: bytes = mlir_sparsify(dense)
        except Exception as error:  # the pass has no exception type of its own
            told = (str(error).strip().splitlines() or [""])[0]
            raise ExportError(
                "weights that TensorFlow can store without zeros", f"{type(error).__name__}: {told}"[:300],
                "leave --sparse-file out",
            ) from error  # fmt: skip
        if len(packed) >= len(dense):
            note = (
                "--sparse-file: no smaller without zeros, so the file holds them; it takes more than a third of zeros"
            )
            return Lowered(source, "float32", (note,))
        target = folder / source.path.name
        target.write_bytes(packed)
        note = (
            f"zeros are left out of the file: {len(packed):,} bytes, {len(dense):,} with them; LiteRT puts them back "
            "on loading, and is not faster for it"
        )
        return Lowered(Exported(target, source.batch), "float32", (note,))


def is_last(draft: Draft, context: Context) -> Draft:
    """Check that no later step writes the file from the model, with its zeros.

    Raises:
        OptionError: One does.
    """
    if not isinstance(draft.lower[-1], SparseFile):
        raise OptionError(
            "--sparse-file in the last step of a recipe",
            "a step after it that writes the file anew",
            "leave --sparse-file out: int8 makes a file smaller than zeros do, and LiteRT does not load both together",
        )
    return draft
