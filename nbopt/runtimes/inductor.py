"""torch.compile: the module through TorchInductor, which needs a C++ compiler on CPU."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from nbopt.batches import Inputs, rows_of
from nbopt.runtimes import Layer, Manifest, Runtime
from nbopt.runtimes.torch_eager import TorchSession, load_module, module_precisions

COMPILERS = ("c++", "g++", "clang++", "cl")


class Inductor(Runtime):
    """Run the module as torch.compile makes it.

    Not among the defaults: compiling takes 5 to 60 s for each model and batch shape.
    """

    name: ClassVar[str] = "inductor"
    title: ClassVar[str] = "torch.compile"
    form: ClassVar[str] = "torch"
    suffix: ClassVar[str] = ".pt"
    frameworks: ClassVar[tuple[str, ...]] = ("torch",)
    packages: ClassVar[dict[str, str]] = {"torch": "torch"}
    by_default: ClassVar[bool] = False
    needs_framework: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    def unavailable(self, framework: str = "") -> str:
        """Return why not, "" where it can be used."""
        reason = super().unavailable(framework)
        if not reason and not any(map(shutil.which, COMPILERS)):
            return f"torch.compile needs a C++ compiler; none of {', '.join(COMPILERS)} is on the path"
        return reason

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> TorchSession:
        """Load the module; it is compiled at its first run."""
        frozen = manifest.precision == "int8"
        return TorchSession(load_module(path, manifest), manifest, threads=threads, compiled=True, frozen=frozen)

    def layers(self, path: Path, session: TorchSession, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers of the module as it stands: TorchInductor keeps the dtypes of its products."""
        from nbopt.runtimes._torch_program import Program, program_layers

        if isinstance(session.model, Program):
            named = session.named(inputs)
            return program_layers(
                session.model, [session._tensor(named[n]) for n in session.model.names], rows_of(inputs)
            )
        return session.layers(inputs)

    def leftovers(self, path: Path, session: TorchSession) -> tuple[str, ...]:
        """Return masks, parametrizations and fake quantizers that the module still carries."""
        return session.leftovers()

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return parameters and buffers by dtype."""
        return module_precisions(path)


RUNTIME = Inductor()
