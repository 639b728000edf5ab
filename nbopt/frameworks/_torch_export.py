"""Write a torch module for a runtime: the module itself, ONNX, or OpenVINO IR."""

from __future__ import annotations

import contextlib
import io
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from nbopt.errors import ExportError, MissingExtra
from nbopt.frameworks import Exported, Signature
from nbopt.frameworks._torch_code import ByValue
from nbopt.frameworks._torch_module import call, clone, folded, plain, tensors
from nbopt.frameworks._torch_pickle import dump, without_watchers
from nbopt.frameworks._torch_recurrent import exported_for_any_length
from nbopt.frameworks._torch_trace import place_of, quiet, reason_of, trace

PROTOBUF_BYTES = 1 << 30  # protobuf holds 2 GiB at most
KEEP_BYTES = 256 << 20


def export(model: torch.nn.Module, signature: Signature, path: Path, form: str) -> Exported:
    """Write `model` in the given form, for any number of rows where it can be.

    Raises:
        ExportError: torch.export or the converter refuses; the message has its reason.
        MissingExtra: The converter is not installed.
    """
    if form == "torch":
        return _write_module(model, signature, path)
    if form == "litert":
        from nbopt.frameworks._torch_litert import write_litert

        return write_litert(model, signature, path)
    writers = {"onnx": _write_onnx, "openvino": _write_openvino}
    if form not in writers:
        raise ExportError(
            f"a form among torch, litert, {', '.join(writers)}", form, "a torch model has no way to it here"
        )
    graph = onnx_graph(model, signature)
    with quiet():
        try:
            writers[form](graph.proto, path)
        except MissingExtra:
            raise
        except Exception as error:
            # Converters raise types of their own for each op that they lack; what matters is which op.
            raise ExportError(f"operations that {form} has", reason_of(error), "try another runtime") from error
    return Exported(path, graph.batch, graph.notes)


@dataclass(frozen=True)
class Graph:
    """Hold a model as ONNX.

    Args:
        proto: The `onnx.ModelProto`; not to be changed.
        batch: Rows that it is fixed to, None for any number.
        notes: What a reader must know.
        mark: What the model's tensors were when it was made.
    """

    proto: Any
    batch: int | None
    notes: tuple[str, ...]
    mark: Any


_Graphs = weakref.WeakKeyDictionary[torch.nn.Module, Graph]
_kept: ContextVar[_Graphs | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def graph_kept() -> Iterator[None]:
    """Keep the last model's graph: several runtimes are asked for the same model in a row, and tracing takes seconds.

    No longer than that: a write by way of `.data`, another activation or an edited `forward` leaves no trace in the
    tensors, and a user makes such changes between two commands.
    """
    token = _kept.set(weakref.WeakKeyDictionary())
    try:
        yield
    finally:
        _kept.reset(token)


def onnx_graph(model: torch.nn.Module, signature: Signature) -> Graph:
    """Return a model as ONNX, within `graph_kept` the last one again where no tensor of it has changed since.

    Raises:
        ExportError: torch.export or the ONNX exporter refuses; the message has its reason.
        MissingExtra: The exporter is not installed.
    """
    try:
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise MissingExtra(str(error.name), "torch", "export to ONNX") from error
    mark, last = _mark(model, signature), _kept.get()
    if last is not None:
        if model in last and last[model].mark == mark:
            return last[model]
        last.clear()
    widened = any(p.dtype == torch.bfloat16 for p in model.parameters())
    # The copy has no name here, so that it goes as soon as the program, which has one of its own, is there.
    program, batch, notes = trace(_twin(model, widened=widened), signature)
    if widened:
        notes = (*notes, "exported in float32: runtimes lack bfloat16 kernels for some operations on CPU")
    # A fused kernel's output lies in memory as the one that the exporter computes in its place does not: of the view
    # that follows in Swin, torch 2.13 then says that it can't be made.
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    with quiet(), contextlib.redirect_stdout(io.StringIO()), exported_for_any_length(), plain_attention:
        try:
            result = torch.onnx.export(program, (), input_names=signature.names, output_names=["output"], dynamo=True)
        except Exception as error:
            reason = reason_of(error)
            reason += place_of(program, reason)
            raise ExportError("operations that ONNX has", reason, "try --runtime torch") from error
    if result is None:
        raise ExportError("an ONNX program", "none: the exporter gave up", "try --runtime torch")
    _free_names(result.model, {*signature.names, "output"})
    _cut_windows(result.model)
    graph = Graph(_without_metadata(result.model_proto), batch, notes, mark)
    del program, result
    if not graph.proto.graph.input:
        raise ExportError("a model that uses its inputs", "a constant", "check forward")
    if last is not None and graph.proto.ByteSize() <= KEEP_BYTES:
        last[model] = graph
    return graph


def _twin(model: torch.nn.Module, *, widened: bool) -> torch.nn.Module:
    """Return a copy on CPU with its wrappers folded; in float32, which holds each bfloat16 exactly, where `widened`."""
    twin = folded(clone(model)).cpu()
    return twin.float() if widened else twin


def _free_names(program: Any, taken: set[str]) -> None:
    """Rename, in place, what has the name of an input and is none.

    torch 2.13 gives inputs their names and looks at no others: beside torch.cat, an input that a batch calls "cat"
    made a file that ONNX Runtime refuses, "Duplicate definition of name (cat)".
    """
    ports = {id(value) for value in (*program.graph.inputs, *program.graph.outputs)}
    made = [value for node in program.graph.all_nodes() for value in node.outputs if id(value) not in ports]
    names = {value.name for value in made} | taken
    for value in made:
        if value.name in taken:
            value.name = next(name for i in range(len(names) + 1) if (name := f"{value.name}_{i}") not in names)
            names.add(value.name)


def _cut_windows(program: Any) -> None:
    """Let no window of a mean be wider than what it is of, in place.

    What lies outside counts for nothing. Hugging Face's EfficientNet ends in a window of 1280 by 1280 with `ceil_mode`
    over 7 by 7 values, for which OpenVINO 2026.4 has no conversion.
    """
    import onnx_ir  # the exporter's own, here by now

    for node in program.graph.all_nodes():
        if node.op_type != "AveragePool" or any(node.attributes.get_ints("pads", ())):
            continue
        window, shape = node.attributes.get_ints("kernel_shape"), node.inputs[0].shape
        sizes = window if shape is None else tuple(shape)[-len(window) :]
        pairs = zip(sizes, window, strict=True)
        cut = [min(size, width) if isinstance(size, int) else width for size, width in pairs]
        if cut != list(window):
            node.attributes.add(onnx_ir.AttrInt64s("kernel_shape", cut))


def _without_metadata(proto: Any) -> Any:
    """Take out what the exporter says of each node's origin, in place.

    It is two thirds of a small transformer's file, grows with the code and not with the weights, and carries the
    user's source lines and paths to whoever gets the file.
    """
    graphs = [proto.graph, *proto.functions]
    del proto.metadata_props[:]
    while graphs:
        graph = graphs.pop()
        # A function has no tensors of its own.
        held = ("initializer", "value_info", "input", "output") if hasattr(graph, "initializer") else ()
        parts = [graph, *graph.node, *(part for name in held for part in getattr(graph, name))]
        for part in parts:
            del part.metadata_props[:]
            part.doc_string = ""
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return proto


def _mark(model: torch.nn.Module, signature: Signature) -> Any:
    """Return what changes when a tensor of the model is replaced or written to: torch counts writes itself."""
    held = [*model.named_parameters(), *model.named_buffers()]
    tensors_now = [(name, id(tensor), tensor._version, tuple(tensor.shape)) for name, tensor in held]
    return tensors_now, signature.leaves, signature.keyed


def _write_module(model: torch.nn.Module, signature: Signature, path: Path) -> Exported:
    """Write the module itself, code and weights together, as cloudpickle does.

    Not torch.export's program: run eagerly, its graph was 1.3 times slower than the module that it came from
    (torch 2.13, a small CNN), and as a baseline it would flatter everything measured against it. Classes of the
    user's own files go by value, so that the file loads where they are not.
    """
    try:
        needs = _pickle(without_watchers(folded(clone(model))), path, lambda: _run(clone(model), signature))
    except OSError:
        raise
    except Exception as error:
        # A pickle raises whatever a part of the model happens to raise.
        raise ExportError(
            "a model that can be written to a file",
            f"{reason_of(error)} in {type(model).__name__}",
            "keep open files, locks, generators and modules out of the model's attributes and of its file's globals",
        ) from error
    notes = (needs,) if needs else ()
    if plain(model) is model:
        return Exported(path, notes=notes)
    wrapper = "DataParallel" if isinstance(model, torch.nn.DataParallel) else "torch.compile"
    return Exported(path, notes=(*notes, f"measured without {wrapper} around it"))


def _pickle(model: torch.nn.Module, path: Path, run: Callable[[], None], why: str = "") -> str:
    """Write a module as a pickle; return what is needed to read it, "" for nothing of the user's.

    Args:
        model: The module.
        path: Where to.
        run: Makes one forward pass of a copy.
        why: What can't go into the file beside the classes of the layers, so that only these go by value.
    """
    with ByValue({type(part).__module__ for part in model.modules()}, follow=not why) as code:
        try:
            with path.open("wb") as file:  # not by way of bytes: large models stand in memory often enough
                dump(model, file, run, code)
        except OSError:
            raise
        except Exception as error:
            if not code.followed:
                raise
            why = reason_of(error)
        else:
            reason = f": {why}" if why else ""
            names = ", ".join(sorted(code.needed))
            return f"the file loads only where {names} can be imported{reason}" if names else ""
    return _pickle(model, path, run, why)


def _run(model: torch.nn.Module, signature: Signature) -> None:
    with torch.no_grad():
        call(model, tensors(model, signature.example))


def _write_onnx(proto: Any, path: Path) -> None:
    import onnx

    if proto.ByteSize() <= PROTOBUF_BYTES:
        onnx.save_model(proto, path)
    else:
        onnx.save_model(proto, path, save_as_external_data=True, location=path.name + ".data")


def _write_openvino(proto: Any, path: Path) -> None:
    """Write OpenVINO IR by way of ONNX.

    Straight from torch.export's program, OpenVINO 2026.4 unrolls an LSTM to the length of the example: another
    length gave wrong numbers without a word (0.13 off on logits). From ONNX it becomes one LSTMSequence of any
    length.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("openvino", "torch", "export to OpenVINO") from error
    with tempfile.TemporaryDirectory(prefix="nbopt-export-") as folder:
        graph = Path(folder) / "model.onnx"
        _write_onnx(proto, graph)
        model = _with_float_ports(openvino.convert_model(graph))
        # The default writes weights as float16: the baseline would not be the user's model any more.
        openvino.save_model(model, path, compress_to_fp16=False)


def _with_float_ports(model: Any) -> Any:
    """Let inputs and outputs in bfloat16 be float32: NumPy has no bfloat16, and OpenVINO would hand it the bits."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    ports = PrePostProcessor(model)
    changed = False
    for described, port in ((ports.input, model.inputs), (ports.output, model.outputs)):
        for index, entry in enumerate(port):
            if entry.get_element_type() == openvino.Type.bf16:
                described(index).tensor().set_element_type(openvino.Type.f32)
                changed = True
    return ports.build() if changed else model
