"""Eager PyTorch: the module itself, as a user runs it today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nbopt.batches import Inputs, map_leaves, rows_of
from nbopt.errors import ArtifactError
from nbopt.runtimes import Layer, Manifest, Runtime, Session

if TYPE_CHECKING:
    import torch


class TorchSession(Session):
    """Run a module, eagerly or as torch.compile made it."""

    def __init__(
        self,
        model: torch.nn.Module,
        manifest: Manifest,
        *,
        threads: int,
        compiled: bool = False,
        frozen: bool = False,
    ) -> None:
        import torch

        from nbopt.frameworks._torch_module import takes_whole

        self.model = model
        self.manifest = manifest
        self.threads = threads
        self._torch = torch
        self._device = torch.device(manifest.device)
        floating = next((p.dtype for p in model.parameters() if p.dtype.is_floating_point), None)
        self._dtype = floating
        self._call: Any = compiled_module(model, frozen) if compiled else model
        self._whole = takes_whole(model, manifest.inputs if manifest.keyed else len(manifest.inputs))

    def _run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        from nbopt.frameworks._primary import primary_output
        from nbopt.frameworks._torch_module import invoke, output_array

        prepared = map_leaves(self._tensor, inputs)
        before = self._torch.get_num_threads()
        if before != self.threads:
            self._torch.set_num_threads(self.threads)  # one setting for all of torch: the user's comes back
        try:
            with self._torch.inference_mode():
                return output_array(primary_output(invoke(self._call, prepared, whole=self._whole)))
        finally:
            if before != self.threads:
                self._torch.set_num_threads(before)

    def layers(self, inputs: Inputs, note: str = "") -> tuple[Layer, ...]:
        """Return the module's layers, run once as it is on one row; `note` is said of what a compiler may change."""
        from nbopt.frameworks._torch_module import invoke
        from nbopt.runtimes._torch_layers import executed_layers

        prepared = map_leaves(self._tensor, inputs)
        model = self.model

        def run() -> Any:
            return invoke(model, prepared, whole=self._whole)

        return executed_layers(model, run, rows_of(inputs), note)

    def leftovers(self) -> tuple[str, ...]:
        """Return masks, parametrizations and fake quantizers that the module still carries."""
        from nbopt.runtimes._torch_layers import left_in_module

        return left_in_module(self.model)

    def _tensor(self, leaf: Any) -> torch.Tensor:
        # torch takes neither views from back to front nor another machine's order of bytes, and warns about arrays that
        # it must not write to; what it takes, it shares.
        array = np.asarray(leaf)
        if not (array.flags.carray and array.dtype.isnative):
            array = np.require(array, array.dtype.newbyteorder("="), ("C", "W"))
        tensor = self._torch.from_numpy(array)
        if self._dtype is not None and tensor.dtype.is_floating_point and tensor.dtype != self._dtype:
            tensor = tensor.to(self._dtype)
        return tensor.to(self._device) if self._device.type != "cpu" else tensor


MOST_SHAPES = 64
"""Shapes that a frozen module is compiled for, each for itself; beyond these torch runs it as it stands, and slowly."""


def compiled_module(model: torch.nn.Module, frozen: bool) -> Any:
    """Return a module as torch.compile makes it; `frozen` with weights that can't change.

    Integer kernels want their weights packed once, which TorchInductor does with such weights only. That is decided
    where the graph is traced, which an option of `torch.compile` does not reach ("UnsupportedOperatorException:
    onednn.qlinear_prepack"): the setting of the whole process is, and it holds while a shape is new.
    """
    import torch

    if not frozen:
        return torch.compile(model)
    # A shape at a time: frozen convolutions of any number of rows fail in torch 2.13 on the strides of channels-last
    # ("expected size 16==16, stride 1==64 at dim=1").
    compiled = torch.compile(model, dynamic=False)
    known: set[Any] = set()

    def call(*args: Any, **kwargs: Any) -> Any:
        shapes = tuple(leaf.shape for leaf in (*args, *kwargs.values()))
        if shapes in known:
            return compiled(*args, **kwargs)
        with torch._inductor.config.patch(freezing=True), torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):
            made = compiled(*args, **kwargs)
        known.add(shapes)
        return made

    return call


def load_module(path: Path, manifest: Manifest) -> torch.nn.Module:
    """Read a module that `nbopt.frameworks.torch` wrote, on the manifest's device.

    The file is a pickle: load only what you trust, as with `torch.load(weights_only=False)`.

    Raises:
        ArtifactError: The file is damaged, its classes can't be imported, or the device is not here.
    """
    import torch

    from nbopt.frameworks._torch_pickle import load

    device = torch.device(manifest.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ArtifactError(f"the device {manifest.device} that the model was on", "no CUDA device here")
    try:
        model: torch.nn.Module = load(path.read_bytes())
    except (ImportError, AttributeError) as error:
        raise ArtifactError(
            f"the classes of the model in {path.name}", str(error), "install the package that defines them"
        ) from error
    except Exception as error:
        # A pickle that was cut or changed raises whatever its next byte happens to mean.
        reason = f"a damaged file, or one of torch.save ({type(error).__name__}: {error})"
        raise ArtifactError(f"a torch module in {path.name}", reason[:300], "export the run again") from error
    if not isinstance(model, torch.nn.Module):
        raise ArtifactError(f"a torch module in {path.name}", f"a {type(model).__name__}", "export the run again")
    return model.to(device).eval()


class TorchEager(Runtime):
    """Run the module with torch's eager kernels."""

    name: ClassVar[str] = "torch"
    title: ClassVar[str] = "PyTorch eager"
    form: ClassVar[str] = "torch"
    suffix: ClassVar[str] = ".pt"
    frameworks: ClassVar[tuple[str, ...]] = ("torch",)
    packages: ClassVar[dict[str, str]] = {"torch": "torch"}
    needs_framework: ClassVar[bool] = True

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> TorchSession:
        """Load the module."""
        return TorchSession(load_module(path, manifest), manifest, threads=threads)

    def layers(self, path: Path, session: TorchSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the module, from what one forward pass dispatches."""
        return session.layers(inputs)

    def leftovers(self, path: Path, session: TorchSession) -> tuple[str, ...]:
        """Return masks, parametrizations and fake quantizers that the module still carries."""
        return session.leftovers()

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return parameters and buffers by dtype."""
        return module_precisions(path)


def module_precisions(path: Path) -> dict[str, int]:
    """Return how many elements of parameters, and of floating and int8 buffers, a kept module has in each dtype."""
    from torch.nn import Parameter

    from nbopt.frameworks._torch_pickle import load

    model = load(path.read_bytes())
    counts: dict[str, int] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        name = str(tensor.dtype).removeprefix("torch.")
        # A quantized program holds its weights as buffers; integers of other kinds are positions and shapes.
        if isinstance(tensor, Parameter) or tensor.dtype.is_floating_point or name == "int8":
            counts[name] = counts.get(name, 0) + tensor.numel()
    return counts


RUNTIME = TorchEager()
