"""What a panel shows of its jobs: their state, and figures while they go on and after."""

from __future__ import annotations

import base64
import re
import threading

from nbopt.jupyter.jobs import Job, Jobs
from nbopt.jupyter.watching import Watch
from nbopt.progress import Progress, ProgressCallback
from tests.render.sample_runs import EVERYTHING


def training(report: ProgressCallback) -> str:
    for step in range(20):
        report(Progress("training", step, 20, "a loss", ("loss", 1.0 / (1 + step))))
    return "result"


def rows(watch: Watch) -> list[str]:
    return [re.sub("<[^>]+>", "", getattr(row, "value", "")) for row in watch.queue.children]


def test_a_training_leaves_its_curve_and_is_told_with_it() -> None:
    jobs, told, changes = Jobs(), [], []
    watch = Watch(jobs, lambda: changes.append(1), lambda line, curves: told.append((line, len(curves.all))))
    watch.begin()
    assert watch._fold.box.layout.display == "none", "there is no figure yet"
    jobs.add(Job("%optimize prune", training))
    assert jobs.wait(20)
    assert told == [("%optimize prune", 1)]
    assert rows(watch) == ["%optimize prune: done in 0 s"]
    assert watch.state.value == ""
    assert watch._fold.box.layout.display == ""
    assert 'alt="loss from 1 to 0.05"' in watch.figures.value
    assert changes


def test_what_was_measured_has_its_front() -> None:
    watch = Watch(Jobs(), lambda: None, lambda line, curves: None)
    watch.compared(EVERYTHING)
    found = re.search(r"base64,([\w+/=]+)", watch.figures.value)
    assert found is not None
    assert base64.b64decode(found[1]).startswith(b"<svg")
    assert "nothing beats" in watch.figures.value
    watch.compared(type(EVERYTHING)([]))
    assert "nothing beats" in watch.figures.value, "what was drawn stays where nothing new can be"


def test_cancel_can_be_pressed_while_something_is_at_work() -> None:
    jobs, go = Jobs(), threading.Event()
    watch = Watch(jobs, lambda: None, lambda line, curves: None)
    watch.begin()
    assert watch.cancel.disabled
    begun = threading.Event()

    def work(report: ProgressCallback) -> None:
        report(Progress("working"))
        begun.set()
        while not go.wait(0.01):
            report(Progress("working"))

    job = jobs.add(Job("%optimize one", work))
    jobs.add(Job("%optimize two", lambda report: None))
    assert begun.wait(20)
    assert not watch.cancel.disabled
    assert rows(watch)[0] == "%optimize one: running"
    watch.cancel.click()
    assert jobs.wait(20)
    assert (job.state, watch.cancel.disabled) == ("cancelled", True)
    assert rows(watch) == ["%optimize one: cancelled", "%optimize two: done in 0 s"]
