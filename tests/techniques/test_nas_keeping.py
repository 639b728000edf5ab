"""A search of architectures outlives its kernel: the same line goes on, and what is damaged is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

SCRIPT = """
import os, signal, sys
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from nbopt.draft import Context, Deployed, Draft
from nbopt.techniques.nas import Nas
from nbopt.workload import Workload

torch.manual_seed(0)
body = [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU()]
model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)).eval()
x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8)
work = Workload(model, train=(x[:500], y[:500]), valid=(x[500:700], y[500:700]), metric="accuracy")
seen = {}

def told(progress):
    seen[progress.what] = seen.get(progress.what, 0) + 1
    if progress.what == sys.argv[1] and seen[progress.what] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

def counted(model):
    parameters = sum(p.numel() for p in model.parameters())
    return Deployed("a count of parameters", 4 * parameters, 0.2 + parameters / 1000)

context = Context(work, progress=told, deploy=counted)
draft = Nas(trials=8, timed=10, shared_epochs=1, epochs=0, finalists=1).apply(Draft(model), context)
print(seen.get("timing candidates", 0), seen.get("training", 0), *draft.notes, sep="\\n")
"""


def test_the_same_line_goes_on_after_the_kernel_was_killed(
    run_python: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    killed = run_python(SCRIPT, "timing candidates", "7")
    assert killed.wait() == -9, killed.communicate()
    told, errors = run_python(SCRIPT, "looking at candidates", "3").communicate()
    assert not told, errors  # killed again, later
    (kept,) = (home / "searches").iterdir()
    told, errors = run_python(SCRIPT, "", "0").communicate()
    assert told, errors
    timed, trained, *notes = told.splitlines()
    assert (timed, trained) == ("0", "0")  # neither the table nor the shared weights are made again
    assert any("went on from what an earlier kernel had: 10 candidates timed, shared weights" in note for note in notes)
    assert not kept.exists()  # it has ended


def test_a_damaged_file_is_told_and_the_search_begins_anew(
    run_python: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    run_python(SCRIPT, "looking at candidates", "1").communicate()
    (kept,) = (home / "searches").iterdir()
    kept.write_bytes(kept.read_bytes()[:-40])
    told, errors = run_python(SCRIPT, "", "0").communicate()
    assert told, errors
    (
        timed,
        *_,
    ) = told.splitlines()
    assert int(timed) >= 10
    assert "what an earlier search kept can't be read" in told
