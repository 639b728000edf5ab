"""`%%optimize nas` with a body: it builds a candidate from `trial`, and the best goes on through the recipe."""

from __future__ import annotations

import pytest

import nbopt
from nbopt.errors import ModelError, OptionError
from tests.jupyter.conftest import MODEL, Shell

LINE = "%%optimize nas --trials 3 --epochs 2 --finalists 1 --runtimes onnxruntime"
BODY = (
    "hidden = trial.suggest_categorical('hidden', [2, 4, 8])\n"
    "small = torch.nn.Sequential(torch.nn.Linear(8, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))\n"
    "small"
)


@pytest.mark.slow
def test_a_body_builds_candidates_and_leaves_nothing_behind(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok("%optimize use net --train train --valid valid --metric accuracy")
    result = shell.ok(f"{LINE} --seed 1\n{BODY}")
    assert isinstance(result, nbopt.Comparison)
    run = next(run for run in result if run.recipe.startswith("nas --trials"))
    assert not run.failed
    assert len(run.search["trials"]) == 3
    assert {row["values"]["hidden"] for row in run.search["trials"]} == {2, 4, 8}
    assert not {"small", "hidden", "trial"} & set(shell.names)
    beside = [each.recipe for each in result if "--controller" in each.recipe]
    assert any("random" in recipe for recipe in beside)
    assert any("uniform" in recipe for recipe in beside)


def test_what_a_body_must_be_is_told(shell: Shell) -> None:
    shell.ok(MODEL)
    shell.ok("%optimize use net --train train --valid valid --metric accuracy")
    error = shell.error(f"{LINE}\nx = 1")
    assert isinstance(error, OptionError)
    assert "the untrained model" in error.expected
    error = shell.error(f"{LINE}\ntrial.suggest_int('x', 1, 5)")
    assert isinstance(error, ModelError)
    assert "a int" in error.came
    shell.ok("def make(trial): return net")
    error = shell.error(f"{LINE} --build make\n{BODY}")
    assert isinstance(error, OptionError)
    assert "--build" in error.came
