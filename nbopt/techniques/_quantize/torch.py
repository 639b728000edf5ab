"""Quantize for torch.compile: PT2E by torchao, compiled with frozen weights."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbopt.batches import leaves
from nbopt.draft import Context, Lowered
from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.runtimes import Runtime
from nbopt.techniques._quantize.calibrating import by_name, calibration_rows
from nbopt.techniques._quantize.refusals import of_whole_numbers

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize


def refuses(options: Quantize, runtime: Runtime, framework: str) -> str:
    """Return why the options have no way here, "" where they have."""
    if not runtime.compiles:
        other = "inductor" if options.dtype == "int8" else "onnxruntime"
        return (
            f"eager torch computes no {options.dtype}; imitated there it is 3x slower than float32: --runtime {other}"
        )
    if options.dtype != "int8" or options.how == "weight_only":
        return "weights alone in fewer bits gained nothing here on CPU: --method static, or --runtime onnxruntime"
    if options.calibration_method != "minmax" or not options.per_channel:
        return "its quantizer takes extremes, and a scale for each channel: leave the other options out"
    if options.equalize or options.bias_correction:
        return "its quantizer neither equalizes nor corrects biases: --runtime openvino"
    if options.keep_float not in ("auto", "none"):
        return "no layer can be left out by name here: --runtime onnxruntime"
    return of_whole_numbers(options)


def lower(
    model: Any,
    signature: Signature,
    source: Exported,
    runtime: Runtime,
    folder: Path,
    context: Context,
    options: Quantize,
) -> Lowered:
    """Write a program with quantizers around its products, which TorchInductor fuses into integer kernels.

    Raises:
        ExportError: torch.export or the quantizer refuses the model.
        MissingExtra: torchao is not installed.
    """
    if find_spec("torchao") is None:
        raise MissingExtra("torchao", "torch", "int8 with torch.compile")
    import cloudpickle
    import torch

    from nbopt.frameworks._torch_module import clone, folded, tensors
    from nbopt.frameworks._torch_trace import quiet, trace
    from nbopt.runtimes._torch_program import Program

    plain = folded(clone(model)).cpu()
    program, batch, notes = trace(plain, signature)
    with quiet(), torch.no_grad():
        from torchao.quantization.pt2e import quantize_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

        quantizer = x86.X86InductorQuantizer()
        quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_dynamic=options.how == "dynamic"))
        prepared = quantize_pt2e.prepare_pt2e(program.module(), quantizer)
        # Dynamic ranges are found at run time: one row serves to run the quantizers, whatever is in it.
        said: tuple[str, ...] = ()
        rows = [by_name(signature.example, signature)]
        if options.how != "dynamic":
            rows, said = calibration_rows(signature, context, options)
        given = [leaves(tensors(plain, tuple(row.values()))) for row in rows]
        for values in given:
            prepared(*values)
        converted = quantize_pt2e.convert_pt2e(prepared)
        _drop_unused(converted)
        free = torch.export.Dim.AUTO
        shapes = [{i: free for i, size in enumerate(leaf.shape) if size is None} for leaf in signature.leaves]
        example = given[0]
        if batch is None:
            # torch.export fixes an axis whose example length is 1.
            example = [torch.cat([value, value]) for value in example]
        try:
            whole = torch.export.export(
                converted, tuple(example), dynamic_shapes=tuple(shapes) if batch is None else None
            )
        except Exception as error:
            # torch.export raises dozens of types.
            text = (str(error).strip().splitlines() or [""])[0]
            raise ExportError(
                "a quantized model that torch.export can trace", text[:300], "--runtime onnxruntime"
            ) from error
        buffer = io.BytesIO()
        torch.export.save(whole, buffer)
    target = folder / f"model{runtime.suffix}"
    target.write_bytes(cloudpickle.dumps(Program(buffer.getvalue(), tuple(signature.names))))
    if context.max_drop is not None and options.keep_float == "auto":
        said = (*said, "which layers are sensitive is not measured here: all that its quantizer takes are in int8")
    return Lowered(Exported(target, batch, notes), "int8", said)


def _drop_unused(module: Any) -> None:
    """Take out the float weights, which stay beside the rounded ones though nothing reads them: half of the file."""
    used = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in [*module.named_parameters(), *module.named_buffers()]:
        if name not in used:
            owner, _, attribute = name.rpartition(".")
            delattr(module.get_submodule(owner), attribute)
