"""The demo: the quickstart notebook run through Papermill, its table, and its HTML."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from nbopt.errors import MissingExtra, NbOptError
from nbopt.render import MIME

NOTEBOOK = "quickstart.ipynb"
TICK = 1.0


class DemoFailed(NbOptError):
    """The notebook did not run to its end."""


@dataclass(frozen=True)
class Demo:
    """Tell what a run of the notebook left.

    Args:
        notebook: The executed notebook.
        html: The same as a page.
        table: The last comparison in it as text, "" where it shows none.
        seconds: How long it ran.
    """

    notebook: Path
    html: Path
    table: str
    seconds: float


def tutorials() -> Path:
    """Return the folder of the tutorials: the repository's, or that of the installed package."""
    package = Path(__file__).parent
    checkout = package.parent / "notebooks"
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "notebooks"


def titles() -> dict[Path, str]:
    """Return the tutorials with their titles; none where the package was installed without them."""
    return {path: _title(path) for path in sorted(tutorials().glob("*.ipynb"))}


def _title(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    written = next(("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"), "")
    return written.split("\n", maxsplit=1)[0].lstrip("# ") or notebook.stem


def run_demo(source: Path, output: Path, parameters: Mapping[str, Any], stream: TextIO) -> Demo:
    """Execute a notebook and write it, and its HTML, into a folder.

    Args:
        source: The notebook.
        output: The folder; it is made. The kernel works in it, so its runs are kept there.
        parameters: Values for the notebook's `parameters` cell.
        stream: Where the line of progress goes.

    Raises:
        MissingExtra: Papermill or nbconvert is not installed.
        DemoFailed: The notebook is not there, or a cell failed.
    """
    for package in ("papermill", "nbconvert", "ipykernel"):
        if find_spec(package) is None:
            raise MissingExtra(package, "notebook", "running a notebook from the terminal")
    if not source.is_file():
        raise DemoFailed(f"the notebook {source.name}", f"no file at {source}", "install nbopt again")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoFailed(
            "a folder that can be written", f"{output}: {error.strerror or error}", "--output another/folder"
        ) from error
    target = output / source.name
    began = time.monotonic()
    _execute(source, target, parameters, stream)
    return Demo(target, _to_html(target), last_table(target), time.monotonic() - began)


def _execute(source: Path, target: Path, parameters: Mapping[str, Any], stream: TextIO) -> None:
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from nbformat import ValidationError
    from nbformat.reader import NotJSONError
    from papermill.exceptions import PapermillExecutionError

    with progress_line(stream, source.name) as line:
        try:
            papermill.execute_notebook(
                str(source),
                str(target),
                parameters=dict(parameters),
                kernel_name="python3",
                language="python",
                cwd=str(target.parent),
                progress_bar=False,
                on_cell_start=lambda cell, cell_index: line.cell(cell.source),
            )
        except (NotJSONError, ValidationError) as error:
            raise DemoFailed("a notebook", f"{source}, which is not one: {str(error)[:80]}") from error
        except PapermillExecutionError as error:
            # An error of nbopt's own has three lines, which become one here.
            came = "; ".join(part.strip() for part in error.evalue.splitlines())
            raise DemoFailed(
                f"{source.name} to run to its end",
                f"cell {error.exec_count} raised {error.ename}: {came}",
                f"open {target}: the cell and what it showed are in it",
            ) from error
        except (DeadKernelError, CellTimeoutError) as error:
            raise DemoFailed(
                f"{source.name} to run to its end",
                "the kernel died (out of memory?)",
                "--rows 2000 takes less memory",
            ) from error


def _to_html(notebook: Path) -> Path:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_filename(str(notebook))
    page = notebook.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return page


def last_table(notebook: Path) -> str:
    """Return the text of the last comparison that a saved notebook shows; no kernel is needed."""
    import nbformat

    table = ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if MIME in data:
                table = data.get("text/plain", "")
    return table


class ProgressLine:
    """Show which cell runs: one line that is written over in a terminal, else a line for each cell.

    Args:
        stream: Where it goes.
        name: Name of the notebook.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name
        self._live = stream.isatty()
        self._began = time.monotonic()
        self._count, self._now = 0, "starting a kernel"
        self._width = 0

    def cell(self, source: str) -> None:
        """Go on to a cell; it is shown by its first line that says something."""
        lines = [line.strip() for line in source.splitlines()]
        self._now = next((line.lstrip("# ") for line in lines if line.strip("# ")), "")[:60]
        self._count += 1
        self.show()

    def show(self) -> None:
        """Write the line."""
        seconds = time.monotonic() - self._began
        line = f"{self._name}: {seconds:3.0f} s, cell {self._count}: {self._now}"
        if self._live:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def tick(self, ended: threading.Event) -> None:
        """Keep the seconds going until the end, where the line can be written over."""
        while self._live and not ended.wait(TICK):
            self.show()

    def end(self) -> None:
        """Take the line away."""
        if self._live:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()


@contextlib.contextmanager
def progress_line(stream: TextIO, name: str) -> Iterator[ProgressLine]:
    """Show a line while the block runs."""
    line = ProgressLine(stream, name)
    ended = threading.Event()
    ticking = threading.Thread(target=line.tick, args=(ended,), daemon=True)
    ticking.start()
    try:
        yield line
    finally:
        ended.set()
        ticking.join()
        line.end()
