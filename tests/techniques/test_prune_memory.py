"""Deciding what goes takes little memory beside the model: a large one may just fit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

MOST = 2.5
"""Times the model's size, beside the copy that is pruned."""

SCRIPT = """
import gc, os, sys, threading, time
import numpy as np
import torch
from torch import nn
from nbopt.recipe import Recipe
from nbopt.draft import Context, Draft
from nbopt.workload import Workload

page = os.sysconf("SC_PAGE_SIZE")

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * page

def pruned(width, line):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    x = np.random.default_rng(0).normal(size=(64, 20)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    work = Workload(model.eval(), train=(x, y), valid=(x, y))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    (step,) = Recipe.parse(line).techniques
    gc.collect()
    before, highest, going = resident(), 0, True
    def watch():
        nonlocal highest
        while going:
            highest = max(highest, resident())
            time.sleep(0.001)
    watcher = threading.Thread(target=watch)
    watcher.start()
    draft = step.apply(Draft(work.model), Context(work))
    for finish in draft.finish:
        finish(draft.model)
    going = False
    watcher.join()
    return (highest - before) / size

pruned(50, sys.argv[1])  # what is imported on the way stays
print(pruned(6000, sys.argv[1]))
"""


@pytest.mark.parametrize(
    "line",
    [
        "prune --sparsity 0.5 --epochs 0",
        "prune --sparsity 0.5 --epochs 0 --scope layer",
        "prune --pattern 2:4 --epochs 0",
        "prune --structured --epochs 0",
    ],
)
def test_no_more_than_a_few_times_the_model(run_python: Callable[..., subprocess.Popen[str]], line: str) -> None:
    told, errors = run_python(SCRIPT, line).communicate()
    assert told, errors
    assert float(told) < 1 + MOST
