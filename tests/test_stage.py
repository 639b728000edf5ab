"""Baselines are measured once, as long as that serves, and again where something went wrong that need not again."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import nbopt.runtimes
from nbopt.conditions import differing_words
from nbopt.draft import Context, Draft
from nbopt.loop import optimize
from nbopt.recording import Settings
from nbopt.runs import Run, RunStore
from nbopt.runtimes import runtime_named
from nbopt.stage import Stage
from nbopt.technique import Technique
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 6)).astype(np.float32)
Y = X[:, :3].argmax(1)


def bound(model: nn.Module | None = None) -> Workload:
    torch.manual_seed(0)
    return Workload(models.mlp(6, 3, 16) if model is None else model.eval(), train=(X, Y), valid=(X, Y))


def test_a_runtime_that_is_installed_after_it_was_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    work, real = bound(), nbopt.runtimes.find_spec
    with monkeypatch.context() as without:
        without.setattr(nbopt.runtimes, "find_spec", lambda name: None if name == "openvino" else real(name))
        before = optimize(work, Quantize(method="dynamic"), runtimes="openvino", threads=1)
    assert "pip install" in before["baseline/openvino"].reason
    after = optimize(work, Quantize(), runtimes="openvino", threads=1)
    assert [run.reason for run in after if run.failed] == []
    assert after["baseline/torch"].id == before["baseline/torch"].id


class Detour(nn.Module):
    """Runs, and can't be exported: its numbers leave torch on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.from_numpy(x.numpy().copy()))


@dataclasses.dataclass(frozen=True)
class Straighten(Technique):
    """Take another model in its place."""

    word: ClassVar[str] = "straighten"

    def apply(self, draft: Draft, context: Context) -> Draft:
        model = nn.Sequential(nn.Linear(6, 3)).eval()
        model[0].load_state_dict(draft.model.last.state_dict())
        return draft.with_(model=model)


def test_what_an_export_refuses_is_not_tried_again_and_splits_no_speedup() -> None:
    work = bound(Detour())
    rows = optimize(work, Straighten(), Quantize(method="dynamic"), runtimes=["torch", "onnxruntime"], threads=1)
    baseline, run = rows["baseline/onnxruntime"], rows["straighten+quantize/onnxruntime"]
    assert baseline.failed
    assert not run.failed, run.reason
    assert run.speedup is not None
    assert run.speedup_runtime is run.speedup_technique is None
    assert any("not known: the untouched model does not run on ONNX Runtime" in note for note in run.notes)
    assert "technique" not in run.verdicts
    assert [step["words"] for step in run.steps] == ["quantize int8 dynamic"]
    assert optimize(work, runtimes="onnxruntime", threads=1)["baseline/onnxruntime"].id == baseline.id
    repr(rows)


def test_the_mean_over_seeds_is_judged_by_the_loss_that_was_allowed() -> None:
    work, recipe = bound(models.train(models.mlp(6, 3, 16), X, Y)), Prune(sparsity=0.7, epochs=1)
    rows = optimize(work, recipe, seeds=2, max_drop=0.9, runtimes="torch", threads=1)
    mean = next(run for run in rows if run.seeds and not run.is_control)
    each = [run.verdicts["quality"] for run in RunStore().runs() if run.id in mean.spread["runs"]]
    assert len(each) == 2
    assert {mean.verdicts["quality"], *each} <= {"same", "slightly worse", "better"}


def test_a_baseline_serves_measurements_as_long_as_its_own_and_shorter_ones() -> None:
    work = bound()
    rows = [optimize(work, measure=each, runtimes="torch", threads=1)["baseline/torch"] for each in ("quick", "full")]
    assert [run.environment["measure"] for run in rows] == ["quick", "full"]
    assert optimize(work, runtimes="torch", threads=1)["baseline/torch"].id == rows[1].id
    quick = dataclasses.replace(rows[0], name="prune/torch", recipe="prune")
    assert differing_words([rows[1], quick]) == []
    assert differing_words([rows[0], dataclasses.replace(rows[1], recipe="prune")]) == ["measurement (full, quick)"]


def test_a_baseline_on_another_device_is_another_one(tmp_path: Path) -> None:
    work = bound()
    with Stage(work, RunStore(tmp_path), Settings(threads=1)) as stage:
        here = stage.baseline(stage.native).run
        assert stage.baseline(stage.native).run is here
        stage._device = "cuda:0"
        assert stage._known(stage.native) is None


def test_a_baseline_whose_process_ended_is_opened_again(tmp_path: Path) -> None:
    work = bound()
    with Stage(work, RunStore(tmp_path), Settings(threads=1)) as stage:
        native: Any = stage.subject(stage.native)
        os.kill(native.bench.pid, signal.SIGKILL)
        run: Run = stage.baseline(runtime_named("onnxruntime")).run
        assert not run.failed, run.reason
        assert stage.subject(stage.native).bench.pid != native.bench.pid
