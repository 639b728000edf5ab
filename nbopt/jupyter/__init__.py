"""The notebook's side: `%optimize`, its completion, its progress.

Only what `%load_ext nbopt` needs is imported here; each verb imports the rest when it is used.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from typing import TYPE_CHECKING

from nbopt.jupyter.magics import COMPARISON, OptimizeMagics

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_NAME = OptimizeMagics.__name__
LOADER = "nbopt loads completion"
"""Name of the thread that imports what the first Tab needs, in a shell without a loop."""

_IDLE_SECONDS = 0.5
_THE_REST = tuple(f"{__name__}.{module}" for module in ("completion", "arguments", "session"))


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """Register `%optimize` and its completion. Loading it twice changes nothing."""
    if _NAME not in ipython.magics_manager.registry:
        magics = OptimizeMagics(ipython)
        ipython.register_magics(magics)
        ipython.Completer.custom_matchers.append(magics.matcher)
        ipython.configurables.append(magics.settings)
        _load_the_rest_when_idle(ipython)


def _load_the_rest_when_idle(ipython: InteractiveShell) -> None:
    """Import what the first Tab needs once no cell runs: it takes 0.2 s, for which a person would wait."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # IPython in a terminal: its loop runs only while it waits for input
        _load_the_rest_after_this_cell(ipython)
        return
    for module in _THE_REST:
        loop.call_later(_IDLE_SECONDS, importlib.import_module, module)  # one by one: a message can come between


def _load_the_rest() -> None:
    for module in _THE_REST:
        importlib.import_module(module)


def _load_the_rest_after_this_cell(ipython: InteractiveShell) -> None:
    """Import it in a thread while a person types the next line; not beside the imports of this cell."""

    def start(_result: object) -> None:
        ipython.events.unregister("post_run_cell", start)
        # No daemon: one that is stopped at exit within the import of compiled code can take the process down.
        threading.Thread(target=_load_the_rest, name=LOADER).start()

    ipython.events.register("post_run_cell", start)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """Take `%optimize` and its completion away again."""
    magics = ipython.magics_manager.registry.pop(_NAME, None)
    if magics is not None:
        ipython.magics_manager.magics["line"].pop("optimize", None)
        ipython.magics_manager.magics["cell"].pop("optimize", None)
        ipython.Completer.custom_matchers.remove(magics.matcher)
        ipython.display_formatter.mimebundle_formatter.pop(COMPARISON, None)
        ipython.configurables[:] = [each for each in ipython.configurables if each is not magics.settings]


__all__ = ["load_ipython_extension", "unload_ipython_extension"]
