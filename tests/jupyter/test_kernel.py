"""A real kernel, and what notebooks and batch runs get from it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from nbopt.render import MIME
from tests.jupyter.conftest import MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAST = "--runtimes onnxruntime --threads 1"
PATIENCE = 120.0


class Kernel:
    """Run cells in a real kernel and keep what it sends."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def run(self, cell: str, watch: Callable[[dict[str, Any]], None] | None = None) -> tuple[dict[str, Any], list[Any]]:
        sent: list[dict[str, Any]] = []

        def take(message: dict[str, Any]) -> None:
            sent.append(message)
            if watch is not None:
                watch(message)

        reply = self.client.execute_interactive(cell, output_hook=take, timeout=PATIENCE, stop_on_error=False)
        return reply["content"], sent

    def value(self, expression: str) -> str:
        reply = self.client.execute_interactive(
            "", user_expressions={"value": expression}, silent=True, store_history=False, timeout=PATIENCE
        )
        found = reply["content"]["user_expressions"]["value"]
        assert found["status"] == "ok", found
        return str(found["data"]["text/plain"])


def of_kind(sent: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [message["content"] for message in sent if message["msg_type"] == kind]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Give a kernel in which a model is bound and measured."""
    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBOPT_HOME", str(folder / "home"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        manager, client = start_new_kernel(kernel_name="python3", cwd=str(folder))
    made = Kernel(manager, client)
    try:
        assert made.run("%load_ext nbopt")[0]["status"] == "ok"
        assert made.run(MODEL)[0]["status"] == "ok"
        content, sent = made.run(f"base = %optimize use net --train train --valid valid --name small {FAST}")
        assert content["status"] == "ok", content
        # One output is updated in place, and what stays of it says how long it took.
        progress = [c for c in of_kind(sent, "display_data") if c["transient"].get("display_id")]
        updates = of_kind(sent, "update_display_data")
        assert len(progress) == 1
        assert {u["transient"]["display_id"] for u in updates} == {progress[0]["transient"]["display_id"]}
        assert updates[-1]["data"]["text/plain"].startswith("done in")
        yield made
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_the_time_goes_on_in_the_cell_while_nothing_is_reported(kernel: Kernel) -> None:
    cell = """
import time
from nbopt.jupyter.progress import live_progress
from nbopt.progress import Progress
with live_progress(get_ipython()) as live:
    live(Progress("exporting"))
    time.sleep(3.5)
"""
    content, sent = kernel.run(cell)
    assert content["status"] == "ok", content
    shown = [message for message in sent if "display_data" in message["msg_type"]]
    lines = [message["content"]["data"]["text/plain"] for message in shown]
    assert len([line for line in lines if line.startswith("exporting ")]) >= 3, lines
    assert lines[-1].startswith("done in ")
    # They are the cell's own, in whatever thread they were sent.
    assert len({message["parent_header"]["msg_id"] for message in shown}) == 1


def test_completion_is_answered(kernel: Kernel) -> None:
    reply = kernel.client.complete("%optimize quantize --valid va", reply=True, timeout=PATIENCE)["content"]
    assert reply["matches"] == ["valid"]
    assert (reply["cursor_start"], reply["cursor_end"]) == (27, 29)
    reply = kernel.client.complete("%%optimize prune --sparsi\nnet", 25, reply=True, timeout=PATIENCE)["content"]
    assert reply["matches"] == ["--sparsity"]


def test_help_is_answered(kernel: Kernel) -> None:
    reply = kernel.client.inspect("%optimize", reply=True, timeout=PATIENCE)["content"]
    assert reply["found"]
    assert "%optimize use model" in reply["data"]["text/plain"]


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        ("%optimize quantise", "OptionError", "did you mean 'quantize'"),
        ("%optimize prune --sparsity 1.5", "OptionError", "between 0 and 1"),
        ("%optimize quantize --valid nothing", "UndefinedName", "'nothing', which is not defined"),
        ("%%optimize quantize\nx = 1", "OptionError", "the model alone on a line"),
    ],
)
def test_an_error_is_short_and_fails_the_cell(kernel: Kernel, line: str, name: str, words: str) -> None:
    content, sent = kernel.run(line)
    assert content["status"] == "error"
    assert content["ename"] == name
    (error,) = of_kind(sent, "error")
    shown = "\n".join(error["traceback"])
    assert words in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 4


def test_an_interrupt_keeps_what_is_done(kernel: Kernel) -> None:
    """Interrupt in the middle of a training: the rows before it are shown, bound, and the cell fails."""
    interrupted = threading.Event()

    def watch(message: dict[str, Any]) -> None:
        text = str(message["content"].get("data", {}).get("text/plain", ""))
        if not interrupted.is_set() and message["msg_type"] == "update_display_data" and "train" in text.lower():
            interrupted.set()
            kernel.manager.interrupt_kernel()

    content, sent = kernel.run(f"%optimize prune --epochs 10000 -o partial {FAST}", watch)
    lines = [c["data"]["text/plain"] for c in of_kind(sent, "update_display_data")]
    said = [c["text"] for c in of_kind(sent, "stream")]
    assert interrupted.is_set(), lines
    # Of the ten thousand it was in the first ones: how long it took is the machine's affair.
    assert content["status"] == "error", (lines[:3], len(lines), lines[-3:], said)
    assert content["ename"] == "Interrupted"
    assert len([line for line in lines if line.startswith("training ")]) < 20, lines
    (error,) = of_kind(sent, "error")
    assert len("\n".join(error["traceback"]).splitlines()) == 1
    tables = [c["data"] for c in of_kind(sent, "display_data") if MIME in c["data"]]
    assert len(tables) == 1
    assert "baseline/onnxruntime" in tables[0]["text/plain"]
    assert kernel.value("[run.recipe for run in partial][0]") == "'baseline'"
    updates = of_kind(sent, "update_display_data")
    assert updates[-1]["data"]["text/plain"].startswith("interrupted after")
    # The kernel is whole, and goes on.
    assert kernel.run("%optimize runs")[0]["status"] == "ok"


def test_an_interrupt_in_the_users_body_shows_the_users_line(kernel: Kernel) -> None:
    def watch(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream" and "sleeping" in message["content"]["text"]:
            kernel.manager.interrupt_kernel()

    content, sent = kernel.run(
        "%%optimize quantize\nimport time\nprint('sleeping', flush=True)\ntime.sleep(60)\nnet", watch
    )
    assert content["ename"] == "KeyboardInterrupt"
    (error,) = of_kind(sent, "error")
    assert "time.sleep(" in "\n".join(error["traceback"])


def test_a_top_level_await_in_the_body(kernel: Kernel) -> None:
    content, sent = kernel.run("%%optimize show\nimport asyncio\nawait asyncio.sleep(0)")
    assert content["ename"] == "OptionError"
    content, sent = kernel.run("%%optimize quantize\nimport asyncio\nawait asyncio.sleep(0)")
    assert "gives None" in content["evalue"]
    assert sent


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    made = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("%load_ext nbopt"),
            nbformat.v4.new_code_cell("%optimize doctor -o found"),
            nbformat.v4.new_code_cell("%optimize quantise"),
            nbformat.v4.new_code_cell("reached = True"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    path = tmp_path / "fails.ipynb"
    nbformat.write(made, path)
    return path


def test_papermill_fails_with_a_short_message(notebook: Path, tmp_path: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    target = tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(str(notebook), str(target), progress_bar=False, cwd=str(tmp_path))
    assert caught.value.ename == "OptionError"
    assert "did you mean 'quantize'?" in caught.value.evalue
    cells = nbformat.read(target, as_version=4).cells
    assert all("reached" not in cell.source or cell.execution_count is None for cell in cells)
    page = next(o for cell in cells for o in cell.get("outputs", ()) if o.output_type == "execute_result")
    assert "store of runs" in page["data"]["text/html"]


def test_papermill_logs_a_line_of_progress_and_not_each_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import papermill

    monkeypatch.setenv("NBOPT_HOME", str(tmp_path / "home"))
    line = f"%optimize prune --epochs 100 --model net --train train --valid valid {FAST}"
    cells = [nbformat.v4.new_code_cell(text) for text in ("%load_ext nbopt", MODEL, line)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "in.ipynb")
    with caplog.at_level("INFO", logger="papermill"):
        papermill.execute_notebook(
            str(tmp_path / "in.ipynb"),
            str(tmp_path / "out.ipynb"),
            progress_bar=False,
            log_output=True,
            cwd=str(tmp_path),
        )
    progress = [each.getMessage() for each in caplog.records if " so far" in each.getMessage()]
    assert len(progress) <= 1, progress
    outputs = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[2].outputs
    plain = [str(output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert plain[0].startswith("done in ")
    assert "ONNX Runtime" in plain[-1]


def test_nbclient_fails_too(notebook: Path, tmp_path: Path) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    body = nbformat.read(notebook, as_version=4)
    with pytest.raises(CellExecutionError, match="did you mean 'quantize'"):
        NotebookClient(body, resources={"metadata": {"path": str(tmp_path)}}).execute()
