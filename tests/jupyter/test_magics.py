"""The magic in a real shell on a real model, measured by the real loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nbopt
from nbopt.comparison import Comparison
from nbopt.demo import titles
from nbopt.errors import DataError, ExportError, GateFailed, ModelError, NbOptError, OptionError
from nbopt.history import RunCard, RunList
from nbopt.runs import RunStore
from tests.jupyter.conftest import MODEL, Shell

FAST = "--runtimes onnxruntime --threads 1"


def test_nothing_is_bound_at_first(shell: Shell) -> None:
    error = shell.error("%optimize quantize")
    assert isinstance(error, ModelError)
    assert shell.shown().splitlines()[0] == "ModelError"
    assert "%optimize use model --train train_dl --valid valid_dl" in str(error)
    assert isinstance(shell.error("%optimize use"), ModelError)


def test_the_line_to_bind_names_what_is_there(shell: Shell) -> None:
    shell.ok(MODEL)
    assert "do: %optimize use net --train train --valid valid" in str(shell.error("%optimize quantize"))


def test_errors_are_short_and_plain(shell: Shell) -> None:
    shell.ok(MODEL)
    for line in (
        "%optimize use net",
        "%optimize use train --valid valid",
        "%optimize quantise",
        "%optimize quantize --x",
    ):
        error = shell.error(line)
        assert isinstance(error, NbOptError)
        assert "Traceback" not in shell.shown()
        assert len(shell.shown().splitlines()) <= 4
    assert isinstance(shell.error("%optimize use net"), DataError)


def test_help_and_doctor_show_themselves(shell: Shell) -> None:
    page = shell.ok("%optimize")
    assert "quantize" in repr(page)
    for path, title in titles().items():
        assert title in repr(page)
        assert str(path) in repr(page)
    assert shell.ok("%optimize quantize --help") == shell.ok("%optimize help quantize")
    assert "--dtype" in repr(shell.ok("%optimize help quantize"))
    assert "ONNX Runtime" in repr(shell.ok("%optimize doctor"))
    bundle = shell.ok("%optimize doctor")._repr_mimebundle_()  # type: ignore[attr-defined]
    assert set(bundle) == {"text/plain", "text/html"}


def test_no_runs_yet(shell: Shell, home: Path) -> None:
    assert "no runs are kept here yet" in repr(shell.ok("%optimize runs"))
    assert isinstance(shell.error("%optimize compare"), NbOptError)
    assert isinstance(shell.error("%optimize show quantize/openvino"), OptionError)
    assert not home.exists(), "asking makes no folder"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_session(shell: Shell, tmp_path: Path) -> None:
    """Bind, quantize, compare, show, export: the work of one notebook, and what it leaves."""
    shell.ok(MODEL)
    shell.ok(
        "before = net(torch.tensor(x)).detach().numpy()\nstate = {k: v.clone() for k, v in net.state_dict().items()}"
    )
    names = set(shell.names)

    base = shell.ok(f"%optimize use net --train train --valid valid --name small {FAST}")
    assert isinstance(base, Comparison)
    assert {"baseline/torch", "baseline/onnxruntime"} >= {run.name for run in base}
    card = shell.displayed()[0]
    assert "small" in str(card["text/plain"])
    assert "text/html" in card

    result = shell.ok(f"%optimize quantize --dtype int8 -o q8 {FAST}")
    assert shell.names["q8"] is result
    assert isinstance(result, Comparison)
    assert not result["quantize/onnxruntime"].failed
    assert shell.displayed() == [], "the result is Out[n] and is not displayed a second time"
    number = shell.ipython.execution_count - 1
    assert shell.names["Out"][number] is result  # type: ignore[index]
    bundle = result._repr_mimebundle_()
    assert {"text/plain", "text/html", "application/vnd.nbopt.comparison.v1+json"} <= set(bundle)

    shell.ok(f"pr = %optimize prune --structured --epochs 0 {FAST};")
    pruned = shell.names["pr"]
    assert isinstance(pruned, Comparison)
    assert shell.displayed() == []

    assert isinstance(shell.names["q8"], Comparison)
    assert set(shell.names) - names <= {"q8", "pr", *(n for n in shell.names if n.startswith("_"))}
    after = shell.ok("net(torch.tensor(x)).detach().numpy()")
    assert np.array_equal(np.asarray(shell.names["before"]), np.asarray(after))
    assert shell.ok("all(torch.equal(v, state[k]) for k, v in net.state_dict().items()) and not net.training")

    every = shell.ok("%optimize compare")
    assert isinstance(every, Comparison)
    assert {"quantize/onnxruntime", "prune/onnxruntime"} <= {run.name for run in every}
    assert every.runs[0].is_baseline
    both = shell.ok("%optimize compare q8 pr")
    assert isinstance(both, Comparison)
    assert {run.id for run in both if not run.is_baseline} == {
        run.id for c in (result, pruned) for run in c if not run.is_baseline
    }
    assert len([run for run in both if run.name == "baseline/onnxruntime"]) == 1
    named = shell.ok("%optimize compare quantize")
    assert isinstance(named, Comparison)
    assert {run.recipe.split()[0] for run in named} == {"baseline", "quantize"}

    runs = shell.ok("%optimize runs")
    assert isinstance(runs, RunList)
    assert len(runs) == len(RunStore().runs())
    assert runs.runs[0].created >= runs.runs[-1].created
    assert len(shell.ok("%optimize runs --last 1")) == 1  # type: ignore[arg-type]

    shown = shell.ok("%optimize show quantize/onnxruntime")
    assert isinstance(shown, RunCard)
    assert shown.run.id == result["quantize/onnxruntime"].id
    assert "latency" in repr(shown)
    assert shell.ok(f"%optimize show {shown.run.id[:8]}").run == shown.run  # type: ignore[attr-defined]
    assert shell.ok('%optimize show {q8["quantize/onnxruntime"]}').run.id == shown.run.id  # type: ignore[attr-defined]
    assert shell.ok('%optimize show q8["quantize/onnxruntime"]').run.id == shown.run.id  # type: ignore[attr-defined]
    assert "which holds" in str(shell.error("%optimize show q8"))
    assert "did you mean 'quantize/onnxruntime'" in str(shell.error("%optimize show quantize/onnx"))
    assert isinstance(shell.error("%optimize show {3}"), OptionError)

    written = shell.ok("%optimize export quantize/onnxruntime taken/model")
    assert "nbopt.load" in repr(written)
    x = shell.names["x"]
    loaded = nbopt.load(tmp_path / "taken" / "model.onnx").predict(x)
    assert np.array_equal(loaded, shown.run.predict(x))
    error = shell.error("%optimize export quantize/onnxruntime taken/model.onnx")
    assert isinstance(error, ExportError)
    assert "--force" in str(error)
    shell.ok("%optimize export quantize/onnxruntime taken/model.onnx --force")
    shell.ok("%optimize export quantize/onnxruntime taken/")
    assert (tmp_path / "taken" / "quantize-onnxruntime.onnx").is_file()

    gate = shell.error(f"%optimize quantize --min-speedup 100000x -o broken {FAST}")
    assert isinstance(gate, GateFailed)
    assert isinstance(shell.names["broken"], Comparison)
    assert "quantize/onnxruntime" in str(shell.displayed()[-1]["text/plain"])
    assert "GateFailed" in shell.shown()
    assert "Traceback" not in shell.shown()


def test_a_model_that_was_trained_since_is_bound_anew(shell: Shell) -> None:
    shell.ok(MODEL)
    session = shell.ipython.magics_manager.registry["OptimizeMagics"].session
    names = shell.names
    first = session.current({"model": names["net"], "valid": names["valid"], "name": "small"})
    assert session.current({}) is first
    key = first.digest
    shell.ok("with torch.no_grad(): net[0].weight.mul_(-1)")
    second = session.current({})
    assert second is not first
    assert second.digest != key
    assert second.name == "small"
    # Another model brings its own name, and keeps the data.
    shell.ok("other = torch.nn.Linear(8, 2).eval()")
    third = session.current({"model": names["other"]})
    assert (third.name, third.valid.source) == ("Linear", names["valid"])
    # What can't be bound leaves what was.
    with pytest.raises(ModelError):
        session.current({"model": 3})
    assert session.current({}) is third


def test_a_variable_that_holds_another_object_is_bound_anew(shell: Shell) -> None:
    shell.ok(MODEL)
    session = shell.ipython.magics_manager.registry["OptimizeMagics"].session
    shell.ok("alias, share = net, lambda y, score: float((score.argmax(1) == y).mean())")
    session.line = "use net --valid x,y"
    names = shell.names
    given = {"model": names["net"], "valid": (names["x"], names["y"]), "metric": names["share"], "name": "small"}
    first = session.bind(given)
    assert session.current({}) is first
    assert shell.displayed() == []
    # The cell that makes the model is run again, and so is the one that makes the data.
    shell.ok("net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()")
    shell.ok("x = x + 1")
    shell.names["session"] = session
    shell.ok("second = session.current({})")
    second = names["second"]
    assert second.model is names["net"]
    assert second.valid.source[0] is names["x"]
    assert second.name == "small"
    assert "small" in str(shell.displayed()[0]["text/plain"]), "what is bound now is shown"
    assert session.current({}) is second
    # Another variable of the same object was not what was bound, and another kind of object can't be.
    shell.ok("alias = torch.nn.Linear(8, 2).eval()\nnet = 3\ndel x")
    assert session.current({}) is second
    shell.ok("share = lambda y, score: 0.5")
    assert session.current({}).metric is names["share"]


@pytest.mark.slow
def test_a_cell_gives_the_model(shell: Shell) -> None:
    shell.ok(MODEL)
    result = shell.ok(
        f"%%optimize quantize --valid late --name made -o q8 {FAST}\n"
        "late = (x[100:], y[100:])\nother = torch.nn.Linear(8, 2).eval()\nother;"
    )
    assert isinstance(result, Comparison)
    assert shell.names["q8"] is result
    assert {run.workload for run in result} == {"made"}
    assert result["quantize/onnxruntime"].rows == 300
    # It is bound: a line goes on with it, and with other data where that is given.
    again = shell.ok(f"%optimize quantize --valid valid {FAST}")
    assert again["quantize/onnxruntime"].rows == 200  # type: ignore[index]
    assert again["quantize/onnxruntime"].workload == "made"  # type: ignore[index]


def test_a_line_with_a_semicolon_shows_nothing(shell: Shell) -> None:
    assert shell.ok("%optimize doctor;") is None
    assert shell.ok("%optimize doctor -o d;") is None
    assert "store of runs" in repr(shell.names["d"])
    shell.ok("e = %optimize doctor;")
    assert "store of runs" in repr(shell.names["e"])


@pytest.mark.parametrize("word", ["help", "?"])
def test_the_docstring_is_the_help_of_the_magic(shell: Shell, word: str) -> None:
    magic = shell.ipython.find_line_magic("optimize")
    assert magic is not None
    assert magic.__doc__ is not None
    assert "%optimize use model --train train_dl --valid valid_dl" in magic.__doc__
    assert word


def test_variables_are_not_expanded_by_ipython(shell: Shell) -> None:
    shell.ok(MODEL)
    error = shell.error("%optimize prune --sparsity {1 / 0}")
    assert "ZeroDivisionError" in str(error)
    assert "$HOME" in str(shell.error("%optimize $HOME"))
