"""Attach: what another kernel is at, and what a killed one left, is told and gone on with."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from nbopt.comparison import Comparison
from nbopt.errors import GateFailed
from nbopt.jupyter.underway import FOLDER, Underway, all_underway, noted
from nbopt.progress import Progress
from nbopt.sheet import Sheet
from nbopt.workload import Workload
from tests.jupyter.conftest import MODEL, Shell

FAST = "--runtimes onnxruntime,openvino --threads 1"
GONE = {"pid": 2**22 + 1, "born": 1.0}


def test_what_is_under_way_is_on_disk_while_it_is(home: Path) -> None:
    with noted(Underway("quantize", "net --valid valid")) as take:
        take(Progress("training", 1, 4, "loss 0.5"))
        take(Progress("measured", note="baseline/onnxruntime"))
        take(Progress("measured", note="quantize/onnxruntime"))
        (found,) = all_underway()
        assert found.lives
        assert found.pid == os.getpid()
        assert found.runtimes == ("onnxruntime",)
        assert found.progress == "quantize/onnxruntime measured"
    assert all_underway() == []


def test_a_file_of_another_kind_is_passed_over(home: Path) -> None:
    Underway("quantize").write()
    folder = home / FOLDER
    (folder / "a.json").write_text("{")
    (folder / "b.json").write_text(json.dumps({"line": "prune", "of_a_newer_nbopt": 1}))
    (folder / "c.json").write_text("[]")
    assert {each.line for each in all_underway()} == {"quantize", "prune"}


def test_a_dead_process_is_told_from_a_living_one_of_its_number() -> None:
    assert Underway("x").lives
    assert not replace(Underway("x"), **GONE).lives
    assert not replace(Underway("x"), born=Underway("x").born - 1000).lives


def test_there_is_nothing_at_first(shell: Shell) -> None:
    shown = shell.ok("%optimize attach")
    assert isinstance(shown, Sheet)
    assert "no runs are kept here yet" in shown.text()


def test_it_says_which_names_are_missing(shell: Shell) -> None:
    Underway("quantize", "net --valid valid", **GONE).write()
    shell.ok("%optimize attach")
    (shown,) = shell.displayed()
    assert "run the cell that defines valid" in str(shown["text/plain"])
    assert len(all_underway()) == 1, "it can be gone on with later"


def test_what_another_kernel_does_is_shown_and_left_alone(shell: Shell) -> None:
    Underway("prune --epochs 5", "net --valid valid", progress="training 2/5").write()
    shell.ok("%optimize attach")
    (shown,) = shell.displayed()
    assert f"at work in process {os.getpid()}: training 2/5" in str(shown["text/plain"])
    assert len(all_underway()) == 1


@pytest.mark.slow
def test_what_was_cut_off_goes_on_with_the_runtimes_that_are_left(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok(f"base = %optimize use net --train train --valid valid --name small {FAST}")
    key = shell.ok("base.runs[0].workload_key")
    assert isinstance(key, str)
    bind = "net --train train --valid valid --name small"
    recipe = {"workload": "small", "recipe": "quantize"}
    done = {"planned": ("onnxruntime", "openvino"), "runtimes": ("onnxruntime",)}
    Underway(f"quantize {FAST}", bind, workload_key=key, **done, **recipe, **GONE).write()
    Underway(f"prune {FAST}", bind, workload_key="of another model", **GONE).write()
    comparison = shell.ok("%optimize attach")
    assert isinstance(comparison, Comparison)
    shown = str(shell.displayed()[0]["text/plain"])
    assert "goes on now" in shown
    assert "the model or the data is another now" in shown
    names = [run.name for run in comparison]
    assert "quantize/openvino" in names
    assert "quantize/onnxruntime" not in names, "that one was measured before"
    assert "quantize/torch" not in names, "nobody asked for that one"
    assert [each.line.split()[0] for each in all_underway()] == ["prune"]


def test_an_interrupt_is_forgotten_with_the_next_cell_and_a_restart_is_not(shell: Shell) -> None:
    session = shell.ipython.magics_manager.registry["OptimizeMagics"].session
    with pytest.raises(KeyboardInterrupt), noted(Underway("quantize"), session._interrupted):
        raise KeyboardInterrupt
    assert len(all_underway()) == 1, "a kernel that ends now was restarted"
    shell.ok("1")
    assert all_underway() == []
    with pytest.raises(ValueError, match="broken"), noted(Underway("quantize"), session._interrupted):
        raise ValueError("broken")
    assert all_underway() == []


def test_looking_at_what_was_cut_off_leaves_what_is_bound(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok("other = torch.nn.Linear(8, 2).eval()")
    session = shell.ipython.magics_manager.registry["OptimizeMagics"].session
    Underway("quantize", "other --valid valid --metric f1", workload_key="x", **GONE).write()
    shell.ok("%optimize attach")
    assert session.workload is None
    work = session.bind({"model": shell.names["net"], "valid": shell.names["valid"]})
    shell.ok("%optimize attach")
    assert "the model or the data is another now" in str(shell.displayed()[0]["text/plain"])
    assert session.workload is work
    assert session.workload.metric_name == "accuracy"
    assert session.bind_line == "net --valid valid"


def test_what_is_bound_is_bound_again_where_going_on_fails(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok("other = torch.nn.Linear(8, 2).eval()")
    session = shell.ipython.magics_manager.registry["OptimizeMagics"].session
    work = session.bind({"model": shell.names["net"], "valid": shell.names["valid"]})
    cut = Workload(shell.names["other"], valid=shell.names["valid"], metric="f1")
    line = "quantize --runtimes onnxruntime --threads 1 --min-speedup 100000x"
    Underway(line, "other --valid valid --metric f1", workload_key=cut.digest, **GONE).write()
    assert isinstance(shell.error("%optimize attach"), GateFailed)
    assert session.workload is work
    assert all_underway() == []


def test_the_record_has_the_runtimes_that_the_recipe_can_take(shell: Shell) -> None:
    """What refuses a recipe, and that nobody named, shall not be gone on with either."""
    shell.ok(MODEL)
    session = shell.ipython.magics_manager.registry["OptimizeMagics"].session
    work = session.bind({"model": shell.names["net"], "valid": shell.names["valid"]})
    seen: list[Underway] = []
    request = session.read("quantize --runtimes onnxruntime --threads 1")
    session.carry_out(work, request, lambda _: seen.extend(all_underway()), session.begun(work, request, "quantize"))
    assert seen[0].workload_key == work.digest
    assert seen[0].planned == ()
    assert seen[-1].planned == seen[-1].runtimes == ("onnxruntime",)
