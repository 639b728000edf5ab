"""Which run a word of a line means: an id, a name in the table shown last, or the newest of that name."""

from __future__ import annotations

import pytest

from nbopt import jupyter
from nbopt.comparison import Comparison
from nbopt.errors import NbOptWarning, OptionError
from nbopt.history import RunCard
from tests.jupyter.conftest import MODEL, Shell

FAST = "--runtimes onnxruntime --threads 1"


def shown_by(shell: Shell, line: str) -> str:
    card = shell.ok(f"%optimize show {line}")
    assert isinstance(card, RunCard)
    return card.run.id


def test_a_name_means_the_run_that_stands_in_the_table_above(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok(f"%optimize use net --train train --valid valid {FAST}")
    shell.ok(f"a = %optimize quantize --dtype int8 {FAST}")
    b = shell.ok(f"%optimize quantize --dtype float16 -o b {FAST}")
    name = "quantize/onnxruntime"
    a = shell.names["a"]
    assert isinstance(a, Comparison)
    assert isinstance(b, Comparison)
    assert f"%optimize export {name} model" in str(b._repr_mimebundle_()["text/html"])
    assert shown_by(shell, name) == b[name].id
    written = repr(shell.ok(f"%optimize export {name} model"))
    assert b[name].label in written
    assert b[name].id[:8] in written
    applied = repr(shell.ok(f"%optimize apply {name} -o fast"))
    assert b[name].label in applied
    assert b[name].id[:8] in applied

    # Another table is looked at: its names are its own.
    shell.ok("a")
    assert shown_by(shell, name) == a[name].id
    every = shell.ok("%optimize compare")
    assert isinstance(every, Comparison)
    for row in every:
        assert shown_by(shell, row.name) == row.id
    assert every[name].id == b[name].id, "the newest has the name alone"
    assert every[f"{name}#2"].id == a[name].id

    # No table has been shown since the extension was loaded: the newest, and which that is is told.
    jupyter.unload_ipython_extension(shell.ipython)
    jupyter.load_ipython_extension(shell.ipython)
    with pytest.warns(NbOptWarning, match=f"2 runs are named {name}.*{b[name].label}, {b[name].id[:8]}"):
        assert shown_by(shell, name) == b[name].id
    assert shown_by(shell, a[name].id[:8]) == a[name].id
    assert "which fits 2" in str(shell.error("%optimize show quantize"))
    assert isinstance(shell.error("%optimize show quantize/openvino"), OptionError)


def test_an_id_is_found_whatever_model_is_bound(shell: Shell) -> None:
    shell.ok(MODEL)
    first = shell.ok(f"%optimize use net --valid valid {FAST}")
    assert isinstance(first, Comparison)
    shell.ok("other = torch.nn.Linear(8, 2).eval()")
    shell.ok(f"%optimize use other {FAST}")
    run = first["baseline/onnxruntime"]
    assert shown_by(shell, run.id[:8]) == run.id
    assert shown_by(shell, "baseline/onnxruntime") != run.id
