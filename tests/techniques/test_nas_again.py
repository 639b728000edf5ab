"""A search that is taken up again: in this kernel, after an interrupt, and where what it went by has changed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.architectures.exploring import Explored
from nbopt.draft import Deployed, Draft
from nbopt.progress import Progress, silent
from nbopt.studies import Budget
from nbopt.techniques._nas.choosing import settled
from nbopt.techniques._nas.hunting import Finalist
from nbopt.techniques._nas.reading import code_of
from nbopt.techniques.nas import AGAIN, Nas
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.techniques.test_nas import dense, hunt_of

FEW: dict[str, Any] = {"trials": 4, "timed": 8, "shared_epochs": 0, "epochs": 1, "finalists": 2}


def interrupting(what: str, at: int) -> Any:
    """Return what interrupts at a report, as the user would."""
    seen = 0

    def told(progress: Progress) -> None:
        nonlocal seen
        seen += progress.what == what
        if progress.what == what and seen == at:
            raise KeyboardInterrupt

    return told


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 0.9), ("log_loss", 0.2)])
def test_of_an_interrupted_search_the_best_candidate_is_gone_on_with(digits: Digits, metric: str, best: float) -> None:
    hunt = hunt_of(digits, Budget())
    work = hunt.context.workload
    x, y = digits.x.reshape(-1, 1, 8, 8)[:100], digits.y[:100]
    other = Workload(work.model, valid=(x, y), metric=metric)
    hunt.family = replace(hunt.family, context=replace(hunt.context, workload=other))
    hunt.seen = Explored((), interrupted=True)
    found = [Finalist((at,), None, quality, Deployed("", 0, 1.0)) for at, quality in enumerate((0.4, 0.9, 0.2))]
    chosen, *_ = settled(found, TrainingPlan(), hunt)
    assert chosen.quality == best


def test_a_search_that_is_taken_again_has_a_budget_of_its_own_and_its_rivals_its_latency(digits: Digits) -> None:
    context = hunt_of(digits, Budget()).context
    step = Nas(**FEW, budget=60.0)
    first = step.apply(Draft(context.workload.model), context)
    for rival in step.beside():
        rival.apply(Draft(context.workload.model), context)
    began: list[str] = []
    counting = replace(context, progress=lambda progress: began.append(progress.what))
    # As long after the first as its whole budget: the clock of a purse is all that such a wait moves.
    with pytest.MonkeyPatch.context() as patch:
        now = __import__("time").monotonic
        patch.setattr("time.monotonic", lambda: now() + 100.0)
        again = step.apply(Draft(context.workload.model), counting)
        assert not began  # nothing is searched or trained
        assert AGAIN in again.notes
        assert again.tested == first.tested
        assert again.plan.max_seconds is not None
        assert again.plan.max_seconds > 30
        for rival in step.beside():
            draft = rival.apply(Draft(context.workload.model), counting)
            assert f"within {first.tested['chosen']['values']['latency']:.3g} ms" in draft.notes
            assert draft.plan.max_seconds is not None
            assert draft.plan.max_seconds > 5
    assert "timing candidates" not in began


def test_what_a_choice_went_by_is_no_longer_the_same(digits: Digits) -> None:
    context = hunt_of(digits, Budget(), max_latency=3.0).context
    trained: list[Progress] = []
    context = replace(context, max_drop=0.01, progress=trained.append)
    step, draft = Nas(**FEW), Draft(context.workload.model)
    step.apply(draft, context)

    def again(draft: Draft, drop: float) -> tuple[set[str], Draft]:
        trained.clear()
        found = step.apply(draft, replace(context, max_drop=drop))
        return {progress.what for progress in trained}, found

    assert again(draft, 0.01)[0] == set()
    done, found = again(draft, 1.0)
    assert "training finalists" in done
    assert not done & {"looking at candidates", "timing candidates"}
    assert any("loses at most 1 " in note for note in found.notes)
    longer = draft.with_(plan=TrainingPlan(epochs=2))
    assert "training finalists" in again(longer, 1.0)[0]
    assert AGAIN in again(longer, 1.0)[1].notes


def test_an_interrupt_while_a_rival_looks_at_candidates_is_one(digits: Digits) -> None:
    context = replace(hunt_of(digits, Budget()).context, progress=interrupting("looking at candidates", 3))
    with pytest.raises(KeyboardInterrupt):
        Nas(controller="random", **FEW).apply(Draft(context.workload.model), context)


def test_an_interrupt_while_the_best_are_trained_again_keeps_all_candidates(digits: Digits) -> None:
    context = hunt_of(digits, Budget()).context
    step = Nas(build=dense, trials=4, epochs=1, finalists=2)
    stopped = replace(context, progress=interrupting("training the best again", 2))
    draft = step.apply(Draft(context.workload.model), stopped)
    assert draft.interrupted
    assert len(draft.tested["trials"]) == 4
    assert any("while the best were trained again" in note for note in draft.notes)
    seen: list[Progress] = []
    again = step.apply(Draft(context.workload.model), replace(context, progress=seen.append))
    assert again.tested["study"] == draft.tested["study"]
    assert again.tested["trials"] == draft.tested["trials"]  # none of them is trained anew
    assert len(again.tested["finalists"]) == 2
    # One that has ended is not gone on with by a longer line.
    more = replace(step, learning_rate=1e-2).apply(Draft(context.workload.model), replace(context, progress=silent))
    assert more.tested["study"] != draft.tested["study"]


def test_searches_are_kept_where_the_runs_are(digits: Digits, tmp_path: Path) -> None:
    context = replace(hunt_of(digits, Budget()).context, home=tmp_path)
    Nas(build=dense, trials=1, epochs=1, finalists=1).apply(Draft(context.workload.model), context)
    assert [path.name for path in tmp_path.glob("*.journal")] == ["studies.journal"]
    stopped = replace(context, progress=interrupting("looking at candidates", 3))
    Nas(**FEW).apply(Draft(context.workload.model), stopped)
    assert len(list((tmp_path / "searches").iterdir())) == 1


WIDTH = 8


def net(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def make(trial: Any) -> nn.Module:
    return net(trial.suggest_int("hidden", WIDTH, 16))


def test_a_body_whose_code_has_changed_is_searched_anew(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    context = hunt_of(digits, Budget()).context
    step = Nas(build=make, trials=3, epochs=1, finalists=1)
    first = step.apply(Draft(context.workload.model), context)
    assert AGAIN in step.apply(Draft(context.workload.model), context).notes

    def wider(hidden: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4 * hidden), nn.Tanh(), nn.Linear(4 * hidden, 10))

    monkeypatch.setitem(globals(), "net", wider)
    other = step.apply(Draft(context.workload.model), context)
    assert AGAIN not in other.notes
    assert other.tested["study"] != first.tested["study"]


def test_code_is_what_it_does_and_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    known = code_of(make)
    assert code_of(make) == known

    def classed(extra: str) -> Any:
        scope: dict[str, Any] = {"__name__": "__main__", "nn": nn}
        forward = f"def forward(self, x):\n        return x{extra}"
        exec(f"class Net(nn.Module):\n    {forward}\n\ndef make(trial):\n    return Net()", scope)
        return scope["make"]

    assert code_of(classed("")) == code_of(classed(""))
    assert code_of(classed("")) != code_of(classed(" + 1"))
    monkeypatch.setitem(globals(), "WIDTH", 12)
    assert code_of(make) != known
    monkeypatch.setitem(globals(), "WIDTH", 8)
    assert code_of(make) == known
    monkeypatch.setitem(globals(), "net", torch.nn.Linear)
    assert code_of(make) != known

    def listed(sizes: list[int]) -> Any:
        return lambda trial: trial.suggest_categorical("size", sizes)

    assert code_of(listed([16, 32, 16])) == code_of(listed([16, 32, 16]))
    assert code_of(listed([16, 32, 16])) != code_of(listed([16, 32, 32]))
    circle: list[Any] = [np.zeros(3), math.pi]
    circle.append(circle)
    assert code_of(listed(circle)) == code_of(listed(circle))
