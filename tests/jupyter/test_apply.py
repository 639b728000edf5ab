"""Apply and undo: a run's model in a variable, and back."""

from __future__ import annotations

import numpy as np
import pytest

from nbopt.errors import NbOptError, OptionError
from tests.jupyter.conftest import MODEL, Shell

FAST = "--runtimes onnxruntime --threads 1"

pytestmark = pytest.mark.slow


@pytest.fixture
def quantized(shell: Shell) -> Shell:
    shell.ok(MODEL)
    shell.ok(f"q8 = %optimize quantize --model net --train train --valid valid {FAST}")
    return shell


def test_a_run_is_applied_and_taken_back(quantized: Shell) -> None:
    shell = quantized
    shell.ok("fast = 'mine'")
    told = shell.ok("%optimize apply quantize/onnxruntime -o fast")
    assert "fast.predict(x)" in repr(told)
    rows = shell.ok("fast.predict(x)")
    assert isinstance(rows, np.ndarray)
    assert rows.shape == (400, 2)
    shell.ok("%optimize apply {q8.best()} -o other")
    assert "other is not defined, as before" in repr(shell.ok("%optimize undo"))
    assert "other" not in shell.names
    shell.ok("%optimize undo")
    assert shell.names["fast"] == "mine"
    assert isinstance(shell.error("%optimize undo"), NbOptError)


def test_the_frameworks_model_can_be_taken(quantized: Shell) -> None:
    shell = quantized
    shell.ok("%optimize apply baseline/torch --form model -o again")
    assert shell.ok("bool(torch.allclose(again(torch.tensor(x)), net(torch.tensor(x)), atol=1e-6))")
    assert shell.ok("again is not net"), "the user's own model is not what is handed out"


def test_it_needs_a_variable(quantized: Shell) -> None:
    error = quantized.error("%optimize apply quantize/onnxruntime")
    assert isinstance(error, OptionError)
    assert "-o fast_model" in str(error)
