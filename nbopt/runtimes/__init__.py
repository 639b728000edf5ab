"""One file = one way to execute an exported model on this machine."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

import numpy as np

from nbopt.batches import Inputs, rows_of, take_rows
from nbopt.errors import ArtifactError, DataError, MissingExtra, OptionError, nearest


@dataclass(frozen=True)
class Manifest:
    """Say what must be known beside the exported file to run it as it was measured.

    Args:
        runtime: Name of the runtime that it was measured with.
        inputs: Names of the inputs, in the order of the model's positions.
        keyed: Inputs come by name.
        batch: Rows that the file takes at a time, None for any number.
        precision: Precision in which the runtime shall execute: "float32", "bfloat16", "float16", "int8".
        dtypes: NumPy dtypes of the inputs, beside `inputs`.
        shapes: Shapes of the inputs with None for axes that vary, beside `inputs`.
        output: What the output means (an `OutputKind`), "" where that is not known.
        device: Where the framework's own runtimes execute: "cpu", "cuda:0", "mps".
    """

    runtime: str
    inputs: tuple[str, ...] = ()
    keyed: bool = False
    batch: int | None = None
    precision: str = "float32"
    dtypes: tuple[str, ...] = ()
    shapes: tuple[tuple[int | None, ...], ...] = ()
    output: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class Layer:
    """Tell of one layer what the artifact holds and what the runtime really executes.

    Only layers that hold weights or multiply are told: convolutions, matrix products, recurrent layers, attention,
    embeddings. Biases are not counted among the weights.

    Args:
        name: The layer's name in the artifact, as near to the model's own as the artifact keeps it.
        kind: "Conv", "ConvTranspose", "Linear" (a product with weights), "MatMul" (of two activations),
            "Attention", "LSTM", "GRU", "RNN", "Embedding".
        weight_dtype: What the file stores the weights in, "" where there are none.
        compute_dtype: What the runtime multiplies in: a dtype, "int8 dynamic" where activations become int8 at run
            time, or "unknown" where the runtime does not tell.
        weight_shape: Shape of the weights, of the largest where there are several.
        weights: Elements of all weights.
        zeros: How many of those are zero.
        macs: Multiply-accumulates for one row.
        note: Why something is unknown, or what the dtype rests on.
    """

    name: str
    kind: str
    weight_dtype: str
    compute_dtype: str
    weight_shape: tuple[int, ...] = ()
    weights: int = 0
    zeros: int = 0
    macs: int = 0
    note: str = ""


UNKNOWN = "unknown"


class Session:
    """Run a loaded artifact: NumPy in, primary output out.

    A subclass sets `manifest` and implements `_run` for one batch that the file takes, and `_release` where it holds
    more than Python gives back by itself.
    """

    manifest: Manifest
    closed = False

    def run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the primary output for a batch of any number of rows.

        Raises:
            ArtifactError: The session was closed.
            DataError: Inputs are missing, or have a shape that the model does not take.
        """
        if self.closed:
            raise ArtifactError("an open session", "one that was closed", "load it again")
        fixed = self.manifest.batch
        rows = rows_of(inputs)
        if not rows and fixed is not None:
            raise DataError("one row at least", "none")
        if fixed is None or rows == fixed:
            return self._run(inputs)
        parts = []
        for start in range(0, rows, fixed):
            part = take_rows(inputs, slice(start, start + fixed))
            short = fixed - rows_of(part)
            if short:
                last = take_rows(part, np.r_[np.arange(fixed - short), np.full(short, fixed - short - 1)])
                parts.append(self._run(last)[: fixed - short])
            else:
                parts.append(self._run(part))
        return np.concatenate(parts)

    def _run(self, inputs: Inputs) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    def close(self) -> None:
        """Give back threads and memory; a second time does nothing."""
        if not self.closed:
            self.closed = True
            self._release()

    def _release(self) -> None:
        """Give up what the session holds."""

    def named(self, inputs: Inputs) -> dict[str, np.ndarray[Any, Any]]:
        """Return inputs by the names that the manifest gives them."""
        if isinstance(inputs, dict):
            return inputs
        names = self.manifest.inputs
        if len(names) != len(inputs):
            raise DataError(f"{len(names)} inputs: {', '.join(names)}", f"{len(inputs)}")
        return dict(zip(names, inputs, strict=True))


@dataclass(frozen=True)
class Runtime:
    """Describe a way to execute a model. A file of this package has one instance, `RUNTIME`.

    Class attributes:
        name: Word in runs' names and options.
        title: How tables write it.
        form: The form of file that it loads, a key of `Framework.export`.
        suffix: The file's ending.
        frameworks: Frameworks whose models it takes.
        packages: Import name of each package it needs, with the extra of nbopt that brings it.
        by_default: Used where the user names no runtime.
        needs_framework: The worker process must import the training framework.
        compiles: It compiles a module of the framework, and fuses quantizers in it.
        symmetric_int8: Its int8 kernels take no zero point of activations.
        half_kernels: It computes in float16 where that is asked for.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    form: ClassVar[str]
    suffix: ClassVar[str]
    frameworks: ClassVar[tuple[str, ...]]
    packages: ClassVar[dict[str, str]]
    by_default: ClassVar[bool] = True
    needs_framework: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    symmetric_int8: ClassVar[bool] = False
    half_kernels: ClassVar[bool] = False

    def unavailable(self, framework: str = "") -> str:
        """Return why this runtime can't be used here for models of `framework`, "" where it can."""
        for package, extra in self.packages.items():
            if find_spec(package) is None:
                return MissingExtra(package, extra, self.title).one_line
        if framework and framework not in self.frameworks:
            return f"{self.title} takes models of {' and '.join(self.frameworks)}, not of {framework}"
        return ""

    def load(self, path: Path, manifest: Manifest, *, threads: int) -> Session:
        """Load an artifact.

        Args:
            path: The exported file.
            manifest: What was written beside it.
            threads: Threads of one inference, 1 or more.

        Raises:
            ArtifactError: The file is damaged.
            ExportError: The runtime does not take an operation of the model.
        """
        raise NotImplementedError

    def weight_precisions(self, path: Path) -> dict[str, int]:
        """Return how many weight elements the artifact has in each dtype, read from the file itself."""
        raise NotImplementedError

    def layers(self, path: Path, session: Any, inputs: Inputs) -> tuple[Layer, ...]:
        """Return the layers that hold weights or multiply, as the runtime executes them.

        Args:
            path: The exported file.
            session: What `load` returned for it.
            inputs: One row, from which axes that vary get their lengths.
        """
        raise NotImplementedError

    def leftovers(self, path: Path, session: Any) -> tuple[str, ...]:
        """Return what a technique should have taken out before the export: masks, parametrizations, fake quantizers."""
        return ()

    def version(self) -> str:
        """Return the version of the package that executes."""
        from importlib.metadata import PackageNotFoundError, version

        package = next(iter(self.packages), "")
        for name in (package, package.replace("_", "-")):
            try:
                return version(name)
            except PackageNotFoundError:
                continue
        return ""


@cache
def all_runtimes() -> dict[str, Runtime]:
    """Return every runtime found in this package, by name."""
    found: dict[str, Runtime] = {}
    for module in iter_modules(__path__):
        if module.name.startswith("_"):
            continue  # a part of one runtime, which may import what that runtime runs on
        runtime = getattr(importlib.import_module(f"{__name__}.{module.name}"), "RUNTIME", None)
        if runtime is not None:
            found[runtime.name] = runtime
    return found


def runtime_named(name: str) -> Runtime:
    """Return a runtime by its word.

    Raises:
        OptionError: There is none of that name; the nearest is suggested.
    """
    found = all_runtimes()
    if name not in found:
        raise OptionError(f"a runtime among {', '.join(found)}", repr(name), nearest(name, found))
    return found[name]


__all__ = ["UNKNOWN", "Layer", "Manifest", "Runtime", "Session", "all_runtimes", "runtime_named"]
