"""A real IPython shell in this process, and a small real model in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from IPython.utils.capture import CapturedIO, capture_output
from traitlets.config import Config

from nbopt import jupyter

MODEL = """
import numpy as np, torch
torch.manual_seed(0)
torch.set_num_threads(1)
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 8)).astype("float32")
y = (x[:, 0] + x[:, 1] > 0).astype("int64")
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()
train, valid = (x[:200], y[:200]), (x[200:], y[200:])
"""


class Shell:
    """Run cells as a notebook does."""

    def __init__(self, ipython: InteractiveShell) -> None:
        self.ipython = ipython
        self.out: CapturedIO | None = None

    @property
    def names(self) -> dict[str, object]:
        return self.ipython.user_ns

    def run(self, cell: str) -> ExecutionResult:
        with capture_output() as self.out:
            return self.ipython.run_cell(cell, store_history=True)

    def ok(self, cell: str) -> object:
        result = self.run(cell)
        result.raise_error()
        return result.result

    def shown(self) -> str:
        """Return what the last cell printed, errors included."""
        assert self.out is not None
        return self.out.stdout + self.out.stderr

    def displayed(self) -> list[dict[str, object]]:
        """Return the bundles that the last cell displayed."""
        assert self.out is not None
        return [output.data for output in self.out.outputs]

    def error(self, cell: str) -> BaseException:
        result = self.run(cell)
        error = result.error_in_exec or result.error_before_exec
        assert error is not None, f"{cell} raised nothing"
        return error


@pytest.fixture(scope="module")
def ipython(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        # The singleton, because get_ipython() and what displays ask for it.
        InteractiveShell.clear_instance()
        shell = InteractiveShell.instance(config=config)
        yield shell
        InteractiveShell.clear_instance()


@pytest.fixture
def shell(ipython: InteractiveShell, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """Give a shell with the extension loaded, no variables, and a folder of its own."""
    monkeypatch.chdir(tmp_path)
    ipython.reset(new_session=True)
    jupyter.load_ipython_extension(ipython)
    yield Shell(ipython)
    jupyter.unload_ipython_extension(ipython)
