"""The notebook's side: `%optimize`, its completion, its progress.

Only what `%load_ext nbopt` needs is imported here; each verb imports the rest when it is used.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

from nbopt.jupyter.magics import OptimizeMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_NAME = OptimizeMagics.__name__
_IDLE_SECONDS = 0.5


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register `%optimize` and its completion. Loading it twice changes nothing."""
    if _NAME not in ipython.magics_manager.registry:
        magics = OptimizeMagics(ipython)
        ipython.register_magics(magics)
        ipython.Completer.custom_matchers.append(magics.matcher)
        ipython.configurables.append(magics.settings)
        _load_the_rest_when_idle()


def _load_the_rest_when_idle() -> None:
    """Have the kernel import what the first Tab needs, once no cell runs: it takes 0.2 s, for which a person waits."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return  # a shell without a loop, such as IPython's in a terminal: the first Tab imports it
    for module in ("completion", "arguments", "session"):
        loop.call_later(_IDLE_SECONDS, importlib.import_module, f"{__name__}.{module}")


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Take `%optimize` and its completion away again."""
    magics = ipython.magics_manager.registry.pop(_NAME, None)
    if magics is not None:
        ipython.magics_manager.magics["line"].pop("optimize", None)
        ipython.magics_manager.magics["cell"].pop("optimize", None)
        ipython.Completer.custom_matchers.remove(magics.matcher)
        ipython.configurables[:] = [each for each in ipython.configurables if each is not magics.settings]


__all__ = ["load_ipython_extension", "unload_ipython_extension"]
