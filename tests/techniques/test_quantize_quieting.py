"""What quantizers say is not heard, and what a cell says meanwhile is."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from nbopt.draft import Context, Draft
from nbopt.runtimes import runtime_named
from nbopt.techniques._quantize import onnx, openvino, quieting
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models


@contextmanager
def beside(quiet: Callable[[], contextlib.AbstractContextManager[None]], *said: str) -> Iterator[None]:
    """Have another thread be quiet, and speak, until the block ends."""
    begun, ended = threading.Event(), threading.Event()

    def job() -> None:
        with quiet():
            for text in said:
                print(text)
                warnings.warn(text, stacklevel=1)
                logging.warning(text)
            begun.set()
            ended.wait(30)

    thread = threading.Thread(target=job)
    thread.start()
    assert begun.wait(30)
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


@pytest.mark.parametrize("quiet", [onnx.quiet, openvino.quiet])
def test_a_cell_is_heard_while_a_job_quantizes(
    quiet: Callable[[], contextlib.AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with warnings.catch_warnings(record=True) as heard, beside(quiet, "job"):
        warnings.simplefilter("always")
        print("cell")
        warnings.warn("of the cell", UserWarning, stacklevel=1)
        logging.warning("log of the cell")
        with quiet():
            print("quantizer")
            warnings.warn("of the quantizer", UserWarning, stacklevel=1)
    assert capsys.readouterr().out == "cell\n"
    assert [str(each.message) for each in heard] == ["of the cell"]
    assert "log of the cell" in caplog.messages
    assert "job" not in caplog.messages or quiet is openvino.quiet  # it mutes NNCF's own logger alone


def test_whichever_ends_first_everything_is_as_before() -> None:
    stdout, stderr, filters = sys.stdout, sys.stderr, list(warnings.filters)
    job = beside(quieting.quiet)
    job.__enter__()
    with quieting.quiet():
        job.__exit__(None, None, None)
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    assert list(warnings.filters) == filters

    job = beside(quieting.quiet)
    job.__enter__()
    with contextlib.redirect_stdout(io.StringIO()) as told, warnings.catch_warnings():
        job.__exit__(None, None, None)
        print("to the text")
    assert told.getvalue() == "to the text\n"
    print("heard", file=sys.stdout)
    assert not quieting.muted()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.warn("heard", stacklevel=1)
    assert len(heard) == 1
    with quieting.quiet():
        pass
    assert sys.stdout is stdout


@pytest.mark.parametrize("runtime_name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("options", [Quantize(calibration=9), Quantize(dtype="int4", group_size=16)], ids=str)
def test_quantizing_says_nothing(
    runtime_name: str, options: Quantize, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32), np.arange(40) % 4
    work, runtime = Workload(models.mlp(16, 4), train=(x, y), valid=(x, y)), runtime_named(runtime_name)
    source = work.framework.export(work.model, work.signature, tmp_path / f"float{runtime.suffix}", runtime.form)
    (step,) = options.apply(Draft(work.model), Context(work)).lower
    folder = tmp_path / "lowered"
    folder.mkdir()
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(work.model, work.signature, source, runtime, folder, Context(work))
    assert capfd.readouterr() == ("", "")
