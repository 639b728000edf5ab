"""Jobs: one after the other in a thread, each told of, each cancelled during its work."""

from __future__ import annotations

import threading
import time

from nbopt.comparison import Comparison
from nbopt.errors import Interrupted, NbOptError
from nbopt.jupyter.jobs import PATIENCE, Job, Jobs
from nbopt.progress import Progress, ProgressCallback

LONG = 20.0


def ended(jobs: Jobs) -> None:
    assert jobs.wait(LONG)


def endless(report: ProgressCallback) -> None:
    step = 0
    while True:
        report(Progress("working", step := step + 1))
        time.sleep(0.005)


def test_a_job_runs_beside_the_main_thread_and_tells_how_far_it_is() -> None:
    jobs, seen = Jobs(), []
    jobs.watch(lambda job: seen.append((job.state, threading.current_thread() is threading.main_thread())))

    def act(report: ProgressCallback) -> int:
        report(Progress("step", 1, 2))
        return 7

    job = jobs.add(Job("%optimize quantize", act))
    ended(jobs)
    assert (job.state, job.result) == ("done", 7)
    assert seen[0] == ("waiting", True) or seen[0][0] == "running"
    assert ("running", False) in seen
    assert seen[-1][0] == "done"
    assert job.progress == Progress("step", 1, 2)


def test_a_second_one_waits_for_the_first() -> None:
    jobs, order, go = Jobs(), [], threading.Event()

    def first(report: ProgressCallback) -> None:
        go.wait(LONG)
        order.append("first")

    one = jobs.add(Job("one", first))
    two = jobs.add(Job("two", lambda report: order.append("second")))
    assert two.state == "waiting"
    assert not jobs.wait(0.05)
    go.set()
    ended(jobs)
    assert order == ["first", "second"]
    assert one.state == two.state == "done"
    # The thread has gone, and comes again.
    three = jobs.add(Job("three", lambda report: 3))
    ended(jobs)
    assert three.result == 3


def test_cancel_ends_a_job_at_its_next_report_and_the_next_one_begins() -> None:
    jobs, begun = Jobs(), threading.Event()

    def act(report: ProgressCallback) -> None:
        begun.set()
        endless(report)

    job, after = jobs.add(Job("long", act)), jobs.add(Job("after", lambda report: "done"))
    assert begun.wait(LONG)
    jobs.cancel(job)
    ended(jobs)
    assert job.state == "cancelled"
    assert after.result == "done"


def test_cancel_reaches_work_that_reports_nothing() -> None:
    jobs, begun = Jobs(), threading.Event()

    def act(report: ProgressCallback) -> None:
        begun.set()
        while True:
            sum(range(1000))

    job = jobs.add(Job("silent", act))
    assert begun.wait(LONG)
    jobs.cancel(job)
    ended(jobs)
    assert job.state == "cancelled"
    # What was meant for that job strikes no other.
    next_one = jobs.add(Job("next", lambda report: sum(range(10_000))))
    ended(jobs)
    assert next_one.state == "done"


def test_what_was_measured_before_a_cancel_is_kept() -> None:
    jobs, begun = Jobs(), threading.Event()

    def act(report: ProgressCallback) -> None:
        try:
            begun.set()
            endless(report)
        except KeyboardInterrupt as error:
            stopped = Interrupted("1 row")
            stopped.comparison = Comparison(())
            raise stopped from error

    job = jobs.add(Job("long", act))
    assert begun.wait(LONG)
    jobs.cancel(job)
    ended(jobs)
    assert isinstance(job.result, Comparison)


def test_a_waiting_job_is_cancelled_without_beginning() -> None:
    jobs, go, ran = Jobs(), threading.Event(), []
    jobs.add(Job("first", lambda report: go.wait(LONG)))
    second = jobs.add(Job("second", lambda report: ran.append(1)))
    jobs.cancel(second)
    go.set()
    ended(jobs)
    assert second.state == "cancelled"
    assert ran == []


def test_errors_are_told_and_end_nothing_else() -> None:
    jobs = Jobs()

    def broken(report: ProgressCallback) -> None:
        raise NbOptError("a model", "none", "make one")

    def user(report: ProgressCallback) -> None:
        raise ZeroDivisionError("of the user")

    one, two = jobs.add(Job("one", broken)), jobs.add(Job("two", user))
    ended(jobs)
    assert (one.state, two.state) == ("failed", "failed")
    assert "do: make one" in one.error
    assert two.error == "ZeroDivisionError: of the user"


def test_one_click_is_one_interrupt_and_another_click_another() -> None:
    """A search measures its best after an interrupt, and what it holds is put away: neither shall be struck."""
    jobs, kept, begun, measuring = Jobs(), [], threading.Event(), threading.Event()

    def act(report: ProgressCallback) -> None:
        try:
            begun.set()
            endless(report)
        except KeyboardInterrupt:
            for _ in range(3):
                report(Progress("measuring the best so far"))
            ends = time.monotonic() + 1.5 * PATIENCE
            while time.monotonic() < ends:
                sum(range(1000))
            kept.append("the best")
            measuring.set()
            endless(report)

    job = jobs.add(Job("search", act))
    assert begun.wait(LONG)
    jobs.cancel(job)
    assert measuring.wait(LONG)
    assert kept == ["the best"]
    assert job.stopping
    assert not job.interrupting, "it can be cancelled once more"
    jobs.cancel(job)
    ended(jobs)
    assert job.state == "cancelled"
