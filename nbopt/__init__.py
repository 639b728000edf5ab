"""Make the PyTorch or Keras model in your notebook smaller, faster or better, and prove it.

Everything public is a lazy name (PEP 562): importing nbopt loads no framework, not even NumPy, and a name
loads its module when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from nbopt.artifacts import load
    from nbopt.comparison import Comparison
    from nbopt.errors import NbOptError
    from nbopt.loop import optimize
    from nbopt.measurement import measure
    from nbopt.rates import LRRange, lr_range
    from nbopt.recipe import Recipe
    from nbopt.reproduce import rerun
    from nbopt.runs import Run, RunStore
    from nbopt.training import TrainingPlan
    from nbopt.tuner import tune
    from nbopt.tuning import Tuning
    from nbopt.workload import Workload

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "LRRange",
    "NbOptError",
    "Recipe",
    "Run",
    "RunStore",
    "TrainingPlan",
    "Tuning",
    "Workload",
    "__version__",
    "load",
    "load_ipython_extension",
    "lr_range",
    "measure",
    "optimize",
    "rerun",
    "tune",
]

_HOME_OF = {
    "Comparison": "nbopt.comparison",
    "LRRange": "nbopt.rates",
    "NbOptError": "nbopt.errors",
    "Recipe": "nbopt.recipe",
    "Run": "nbopt.runs",
    "RunStore": "nbopt.runs",
    "TrainingPlan": "nbopt.training",
    "Tuning": "nbopt.tuning",
    "Workload": "nbopt.workload",
    "load": "nbopt.artifacts",
    "lr_range": "nbopt.rates",
    "measure": "nbopt.measurement",
    "optimize": "nbopt.loop",
    "rerun": "nbopt.reproduce",
    "tune": "nbopt.tuner",
}

# What shows itself does so through nbopt.render, which lies above it and so registers itself from there.
_RENDERED = frozenset({"Comparison", "LRRange", "Tuning", "lr_range", "optimize", "rerun", "tune"})


def _technique_files() -> dict[str, str]:
    """Return the module of each technique class, found by file name: prune.py holds Prune."""
    import pkgutil
    from pathlib import Path

    found = pkgutil.iter_modules([str(Path(__file__).parent / "techniques")])
    return {
        "".join(word.capitalize() for word in module.name.split("_")): f"nbopt.techniques.{module.name}"
        for module in found
        if not module.name.startswith("_")
    }


def __getattr__(name: str) -> Any:
    """Load the public name `name`, or the technique class of that name."""
    from importlib import import_module

    home = _HOME_OF.get(name)
    if home is None and name[:1].isupper():
        home = _technique_files().get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    if name in _RENDERED:
        import_module("nbopt.render")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_technique_files()})


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register the `%optimize` magics; IPython calls this on `%load_ext nbopt`."""
    from nbopt import jupyter

    jupyter.load_ipython_extension(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Take the magics and the completion away again; IPython calls this on `%unload_ext nbopt`."""
    from nbopt import jupyter

    jupyter.unload_ipython_extension(ipython)
