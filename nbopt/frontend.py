"""Which front end a user is in, as far as a kernel can tell, and what to do there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXTENSION = "nbopt"
WIDGETS = "@jupyter-widgets/jupyterlab-manager"


@dataclass(frozen=True)
class FrontEnd:
    """Hold what is known of a front end.

    Args:
        word: "plain", "terminal", "batch", "colab", "vscode", "jupyter" (JupyterLab or Notebook 7), or "kernel" where
            another program drives it.
        state: What it is and what it shows, one sentence.
        do: What to do for more, "" where there is no more.
    """

    word: str
    state: str
    do: str = ""


def front_end(shell: Any, environment: Mapping[str, str], modules: Iterable[str]) -> FrontEnd:
    """Return what runs this.

    A kernel is not told who is at the other end; these are the traces that front ends leave.

    Args:
        shell: The IPython shell, None where there is none.
        environment: The process's variables.
        modules: Names of the modules that are imported.
    """
    if shell is None:
        return FrontEnd("plain", "plain Python: `nbopt` commands and the Python API", "ipython, then %load_ext nbopt")
    if not hasattr(shell, "kernel"):
        return FrontEnd(
            "terminal",
            "IPython in a terminal: tables as text, progress in one line",
            "comparison.save('table.html') for a table with pictures; jupyter lab for the panel",
        )
    if "google.colab" in set(modules) or "COLAB_RELEASE_TAG" in environment:
        return FrontEnd(
            "colab",
            "Google Colab: tables as HTML, the panel as widgets; its own page has no place for the lab extension",
            "!pip install nbopt in each session; copy .nbopt to a drive to keep runs",
        )
    # A terminal of VS Code hands its variables on to a server that is started there, which names its own notebooks.
    of_its_terminal = "JPY_SESSION_NAME" in environment
    traces = not of_its_terminal and any(name.startswith("VSCODE_") for name in environment)
    if traces or "__vsc_ipynb_file__" in shell.user_ns:
        return FrontEnd(
            "vscode",
            "VS Code: tables as HTML, the panel as widgets; it takes no JupyterLab extension",
            "jupyter.widgetScriptSources in its settings, where the panel stays empty; jupyter lab for sorting",
        )
    if not getattr(shell.kernel, "_allow_stdin", True):
        # Who can't be asked has no person before it: nbclient, and so Papermill and nbconvert, say so with each cell.
        return FrontEnd("batch", "a notebook in batch (Papermill, nbconvert --execute): results are saved in it")
    if "JPY_SESSION_NAME" in environment or "JPY_PARENT_PID" in environment:
        return FrontEnd(
            "jupyter",
            "JupyterLab or Notebook 7: tables as HTML; sorting, filters and sliders with the lab extension",
        )
    return FrontEnd("kernel", "a Jupyter kernel: tables as HTML, progress in place")


@dataclass(frozen=True)
class Part:
    """Hold a part of the notebook experience.

    Args:
        name: What it is.
        state: Whether it is there.
        ok: It is.
        do: What to do where it is not.
    """

    name: str
    state: str
    ok: bool = True
    do: str = ""


def parts(where: FrontEnd) -> list[Part]:
    """Return which parts a user has in a front end; in another than Jupyter's there is less to look at."""
    widgets = find_spec("ipywidgets") is not None
    found = [
        Part(
            "panel",
            "ready: %optimize panel" if widgets else "ipywidgets is not installed: the magics do all it does",
            widgets,
            "" if widgets else 'pip install "nbopt[notebook]"',
        )
    ]
    if where.word in ("jupyter", "kernel", "batch"):
        extensions = lab_extensions()
        # A server may run in another environment than the kernel, and its extensions are there.
        elsewhere = "where the server runs, if that is another environment"
        has_widgets, has_own = WIDGETS in extensions, EXTENSION in extensions
        found.append(
            Part(
                "widgets in the page",
                f"{WIDGETS} {extensions[WIDGETS]}" if has_widgets else "not in this environment",
                has_widgets,
                "" if has_widgets else f'pip install "nbopt[notebook]" {elsewhere}',
            )
        )
        found.append(
            Part(
                "lab extension",
                f"nbopt {extensions[EXTENSION]}: tables sort and filter, without a kernel too"
                if has_own
                else "not in this environment: tables are HTML, and complete",
                has_own,
                "" if has_own else f"pip install nbopt {elsewhere}, and reload the page",
            )
        )
    found.append(
        Part("saved notebook", "tables and the panel's results stay, with no kernel and without trust; widgets do not")
    )
    return found


def lab_extensions() -> dict[str, str]:
    """Return the JupyterLab extensions of this environment by name, with their versions."""
    found: dict[str, str] = {}
    for base in _data_folders():
        folder = base / "labextensions"
        for package in (*folder.glob("*/package.json"), *folder.glob("@*/*/package.json")):
            try:
                body = json.loads(package.read_text(encoding="utf-8"))
                found.setdefault(str(body["name"]), str(body.get("version", "")))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # one that is damaged is not there
    return found


def _data_folders() -> list[Path]:
    """Return where Jupyter looks for extensions."""
    if find_spec("jupyter_core") is None:
        return [Path(sys.prefix) / "share" / "jupyter"]
    from jupyter_core.paths import jupyter_path

    return [Path(each) for each in jupyter_path()]


def this_front_end() -> FrontEnd:
    """Return what runs this process's shell."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return front_end(shell, os.environ, tuple(sys.modules))
