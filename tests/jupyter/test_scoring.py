"""`%%optimize tune` with a body: run once a trial, its last value the score, nothing of it left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nbopt
from nbopt.errors import Interrupted, OptionError, StudyError
from tests.jupyter.conftest import Shell

LINE = "%%optimize tune --trials 8 --finalists 1 --repeats 2"


def found(shell: Shell, cell: str) -> nbopt.Tuning:
    result = shell.ok(cell)
    assert isinstance(result, nbopt.Tuning)
    return result


def test_the_body_reads_the_notebook_and_leaves_nothing_in_it(shell: Shell) -> None:
    shell.ok("base, x = 3, 'mine'\ndef shape(v): return (v - base) ** 2")
    best = found(
        shell,
        f"{LINE} --minimize -o best\n"
        "x = trial.suggest_float('x', -5, 5)\n"
        "def twice(v): return 2 * shape(x) + 0 * v\n"
        "y = twice(x)\n"
        "y",
    )
    assert shell.names["best"] is best
    assert shell.names["x"] == "mine"
    assert not {"y", "twice", "trial"} & set(shell.names)
    assert best.maximize == (False,)
    assert best.best_params["x"] == pytest.approx(3, abs=3)
    assert best.metric == "y"
    bundle = best._repr_mimebundle_()
    assert "data:image/svg+xml" in bundle["text/html"]


def test_an_error_is_a_failed_trial_with_its_line_in_the_cell(shell: Shell) -> None:
    best = found(
        shell, f"{LINE}\nx = trial.suggest_float('x', 0, 1)\nif trial.number == 2:\n    raise KeyError('a')\nx"
    )
    (failed,) = [trial for trial in best.study.trials if trial.state.name == "FAIL"]
    assert failed.user_attrs["nbopt:reason"] == "KeyError: 'a' (line 4: raise KeyError('a'))"


def test_nan_is_a_failed_trial_and_none_ends_it(shell: Shell) -> None:
    best = found(shell, f"{LINE}\nx = trial.suggest_float('x', 0, 1)\nfloat('nan') if trial.number == 2 else x")
    assert [trial.state.name for trial in best.study.trials].count("FAIL") == 1
    error = shell.error(f"{LINE}\nx = trial.suggest_float('x', 0, 1)\nprint(x)")
    assert isinstance(error, StudyError)
    assert "gave None" in error.came


def test_syntax_errors_are_told_before_the_first_trial(shell: Shell, home: Path) -> None:
    shell.error(f"{LINE}\nx = = 1\nx")
    assert "invalid syntax" in shell.shown()
    error = shell.error(f"{LINE}\nx = 1")
    assert isinstance(error, OptionError)
    assert "the score" in error.expected
    assert not (home / "studies.journal").exists()


def test_reports_are_pruned(shell: Shell) -> None:
    best = found(
        shell,
        "%%optimize tune --trials 25 --finalists 0 --minimize\n"
        "import optuna\n"
        "x = trial.suggest_float('x', -5, 5)\n"
        "for step in range(5):\n"
        "    trial.report(x * x, step)\n"
        "    if trial.should_prune():\n"
        "        raise optuna.TrialPruned\n"
        "x * x",
    )
    assert sum(trial.state.name == "PRUNED" for trial in best.study.trials) > 2


def test_several_scores_and_limits(shell: Shell) -> None:
    best = found(
        shell,
        f"{LINE} --directions maximize,minimize --max-latency 7ms\n"
        "x = trial.suggest_float('x', 0, 10)\n"
        "trial.set_user_attr('latency_ms', x)\n"
        "x, x * x",
    )
    assert best.maximize == (True, False)
    assert best.best_params["x"] <= 7


def test_processes_and_a_body_that_hangs(shell: Shell) -> None:
    shell.ok(
        "import time\nimport numpy as np\nweights = np.arange(3.0)\ndef total(v): return float((weights * v).sum())"
    )
    best = found(
        shell, f"{LINE} --jobs 2\nx = trial.suggest_float('x', 0, 1)\ntotal(x) + (1 / 0 if trial.number == 5 else 0)"
    )
    (failed,) = [trial for trial in best.study.trials if trial.state.name == "FAIL"]
    assert "(line 3: total(x)" in failed.user_attrs["nbopt:reason"]
    assert best.best_params["x"] > 0.5
    best = found(
        shell,
        "%%optimize tune --trials 4 --finalists 0 --trial-timeout 1s\n"
        "if trial.number == 1: time.sleep(100)\n"
        "trial.suggest_float('x', 0, 1)",
    )
    (failed,) = [trial for trial in best.study.trials if trial.state.name == "FAIL"]
    assert "longer than 1 s" in failed.user_attrs["nbopt:reason"]
    error = shell.error(f"{LINE} --jobs 2\n_ = open\nimport threading\nlock\n1.0")
    assert isinstance(error, StudyError)  # NameError three times over


def test_a_variable_that_cannot_go_to_a_process_is_named(shell: Shell) -> None:
    shell.ok("import threading\nlock = threading.Lock()")
    error = shell.error(f"{LINE} --jobs 2\nwith lock: x = trial.suggest_float('x', 0, 1)\nx")
    assert isinstance(error, StudyError)
    assert error.came.startswith("lock: ")


def test_an_interrupt_binds_what_there_is(shell: Shell) -> None:
    error = shell.error(
        f"{LINE} -o best\nx = trial.suggest_float('x', 0, 1)\nif trial.number == 3: raise KeyboardInterrupt\nx"
    )
    assert isinstance(error, Interrupted)
    kept: Any = shell.names["best"]
    assert len(kept) == 4
    assert any("text/html" in bundle for bundle in shell.displayed())
    resumed = found(shell, f"{LINE} --study {kept.name!r}\ntrial.suggest_float('x', 0, 1)")
    assert len(resumed) == 8


def test_a_start_from_the_notebook(shell: Shell) -> None:
    shell.ok("begun = {'x': 0.25}")
    best = found(shell, f"{LINE} --start begun\ntrial.suggest_float('x', 0, 1)")
    assert best.comparison["start"].params == {"x": 0.25}


@pytest.mark.parametrize(
    ("line", "last", "told"),
    [
        ("", "val_loss", "--minimize with a body that ends in val_loss"),
        ("--maximize", "logs['val_loss']", "--minimize"),
        ("--minimize", "result.auc", "--maximize"),
        ("--minimize --metric auc", "score", "maximize with auc"),
        ("--minimize --maximize", "score", "one direction"),
        ("--train base", "score", "options of its search"),
        ("--runtimes onnxruntime", "score", "options of its search"),
        ("--max-drop 1%", "score", "options of its search"),
        ("| quantize", "score", "one technique"),
        ("--sampler tpa", "score", "--sampler among"),
        ("--trial-timeout 0s", "score", "--trial-timeout"),
    ],
)
def test_what_contradicts_itself_is_told_before_the_first_trial(
    line: str, last: str, told: str, shell: Shell, home: Path
) -> None:
    shell.ok("base = 3")
    error = shell.error(f"%%optimize tune --trials 5 {line}\n{last}")
    assert isinstance(error, OptionError)
    assert told in error.message
    assert not (home / "studies.journal").exists()


def test_a_metric_that_is_known_gives_the_direction(shell: Shell) -> None:
    best = found(shell, f"{LINE}\nrmse = trial.suggest_float('x', 0, 1)\nrmse")
    assert best.maximize == (False,)
    best = found(shell, f"{LINE} --minimize\nval_loss = trial.suggest_float('x', 0, 1)\nval_loss")
    assert best.maximize == (False,)


def test_options_of_a_body_are_refused_on_a_line(shell: Shell) -> None:
    error = shell.error("%optimize tune --maximize")
    assert isinstance(error, OptionError)
    assert "a cell" in error.expected


def test_help_names_them(shell: Shell) -> None:
    page = str(shell.ok("%optimize help tune"))
    assert "--trial-timeout" in page
    assert "gives the score of a `trial`" in page
    assert "--trial-timeout" not in str(shell.ok("%optimize help quantize"))


def test_a_body_may_await(shell: Shell) -> None:
    best = found(shell, f"{LINE}\nimport asyncio\nawait asyncio.sleep(0)\ntrial.suggest_float('x', 0, 1)")
    assert len(best) == 8
