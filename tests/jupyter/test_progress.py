"""Progress: throttled, in one place, with a last line that stays."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from nbopt.jupyter import progress as module
from nbopt.jupyter.progress import LiveProgress, Output, TerminalLine, live_progress
from nbopt.progress import Lap, Progress
from tests.jupyter.conftest import Shell


class Place:
    def __init__(self) -> None:
        self.lines: list[tuple[str, float | None]] = []
        self.last = ""
        self.picture = ""

    def show(self, text: str, share: float | None, picture: str = "") -> None:
        self.lines.append((text, share))

    def end(self, text: str, picture: str = "") -> None:
        self.last, self.picture = text, picture


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "BEAT", 1e6)  # the thread goes by seconds that pass
    return now


def test_it_is_shown_at_most_five_times_a_second(clock: list[float]) -> None:
    place = Place()
    live = LiveProgress(place)
    for step in range(1000):
        clock[0] += 0.01
        live(Progress("training", step, 1000))
    assert 45 <= len(place.lines) <= 51


def test_a_step_that_begins_is_shown_at_once_and_many_are_not(clock: list[float]) -> None:
    place = Place()
    live = LiveProgress(place)
    live(Progress("waiting"))
    clock[0] += 0.01
    live(Progress("reading the data"))
    assert [line.split(" \N{MIDDLE DOT} ")[0] for line, _ in place.lines] == ["waiting", "reading the data"]
    for step in range(1000):
        clock[0] += 0.01
        live(Progress(f"step {step}"))
    assert len(place.lines) <= 10 * 5 * 4 + 4


def test_a_report_costs_next_to_nothing() -> None:
    live = LiveProgress(Place())
    report = Progress("training", 1, 10, "loss 0.5", ("loss", 0.5))
    began = time.perf_counter()
    for _ in range(10_000):
        live(report)
    assert (time.perf_counter() - began) / 10_000 < 50e-6
    live.end("done in")


def test_time_goes_on_while_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT", 0.2)
    place = Place()
    live = LiveProgress(place)
    live(Progress("exporting"))
    until = time.monotonic() + 30
    while len(place.lines) < 4 and time.monotonic() < until:
        time.sleep(0.02)
    live.end("done in")
    shown = [text for text, _ in place.lines]
    assert len(shown) >= 4
    assert all(text.startswith("exporting \N{MIDDLE DOT} ") for text in shown)
    assert len(set(shown)) == len(shown)
    time.sleep(0.5)
    assert len(place.lines) == len(shown)  # and stands still when it is over


def test_what_remains_is_counted_down_while_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "BEAT", 0.1)
    place = Place()
    live = LiveProgress(place)
    live(Progress("training", 0, 10))
    now[0] += 20
    live(Progress("training", 5, 10))
    assert " 20 s left " in place.lines[-1][0]
    for passed, words in ((15, " 5.0 s left "), (10, "50% \N{MIDDLE DOT} 45 s so far")):
        now[0] += passed
        before, until = len(place.lines), time.perf_counter() + 30
        while len(place.lines) == before and time.perf_counter() < until:
            time.sleep(0.02)
        assert words in place.lines[-1][0].replace("5/10", "50%")
    live.end("done in")


def test_the_time_that_remains_is_of_this_step(clock: list[float]) -> None:
    place = Place()
    live = LiveProgress(place)
    live(Progress("calibrating"))
    clock[0] += 50
    live(Progress("training", 0, 10))
    clock[0] += 10
    live(Progress("training", 2, 10, "loss 0.3"))
    assert place.lines[0] == ("calibrating · 0.0 s so far", None)
    assert place.lines[-1] == ("training 2/10 · loss 0.3 · 40 s left · 60 s so far", 0.2)
    clock[0] += 1
    live(Progress("timing", 0.5, 1))
    assert place.lines[-1] == ("timing 50% · 61 s so far", 0.5)
    live.end("done in")
    assert place.last == "done in 61 s"


def test_of_a_long_step_the_rest_is_guessed_after_seconds_not_after_a_share(clock: list[float]) -> None:
    place = Place()
    live = LiveProgress(place)
    for step in range(1, 12):
        live(Progress("training", step / 10_000, 1, lap=Lap(1, step, 10_000)))
        clock[0] += 2
    assert place.lines[0] == ("training step 1 of 10,000 \N{MIDDLE DOT} 0.0 s so far", 1 / 10_000)
    assert " left" not in place.lines[4][0]
    assert place.lines[-1][0] == "training step 11 of 10,000 \N{MIDDLE DOT} 5 h 33 min left \N{MIDDLE DOT} 20 s so far"


def test_a_second_training_is_guessed_by_itself(clock: list[float]) -> None:
    place = Place()
    live = LiveProgress(place)
    live(Progress("training", 0, 10))
    clock[0] += 100
    live(Progress("training", 10, 10))
    clock[0] += 1
    live(Progress("training", 0, 10))
    clock[0] += 10
    live(Progress("training", 5, 10))
    assert " 10 s left " in place.lines[-1][0]


def test_a_loss_has_a_curve_that_stays_and_its_lowest_value(clock: list[float]) -> None:
    place = Place()
    live = LiveProgress(place)
    for step, loss in enumerate((0.9, 0.3, 0.5), 1):
        clock[0] += 10
        live(Progress("training", step, 10, f"loss {loss}", ("loss", loss)))
    assert place.lines[-1][0].startswith("training 3/10 · loss 0.5 · lowest 0.3 · ")
    live.end("done in")
    assert 'alt="loss from 0.9 to 0.5"' in place.picture


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.51, "0.5 s"), (12.4, "12 s"), (119, "119 s"), (150, "2 min"), (8000, "2 h 13 min")]
)
def test_times_are_said_as_people_do(seconds: float, words: str) -> None:
    assert module._seconds(seconds) == words


def test_nothing_is_left_where_nothing_was() -> None:
    place = Place()
    LiveProgress(place).end("done in")
    assert place.last == ""


def test_a_terminal_has_one_line(clock: list[float]) -> None:
    stream = Terminal()
    live = LiveProgress(TerminalLine(stream))
    live(Progress("a long name of a step", 1, 2))
    clock[0] += 1
    live(Progress("b", 2, 2))
    clock[0] += 1
    live.end("done in")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    shown = text.rstrip("\n").split("\r")[-1]
    assert shown.strip() == "done in 2.0 s"
    # The line before it was longer, and nothing of it is left.
    assert len(shown) >= len(text.split("\r")[-2].rstrip())


def test_an_output_is_updated_in_place(shell: Shell, clock: list[float]) -> None:
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        live = LiveProgress(Output())
        live(Progress("<b>step</b>", 1, 2))
        clock[0] += 1
        live(Progress("step", 2, 2))
        live.end("done in")
    ids = {output.transient["display_id"] for output in captured.outputs}
    assert len(ids) == 1
    assert [output.update for output in captured.outputs] == [False, True, True]
    first = captured.outputs[0].data["text/html"]
    assert "<progress" in first
    assert "&lt;b&gt;step" in first
    assert captured.outputs[-1].data["text/plain"] == "done in 1.0 s"


def test_updates_that_take_long_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is the test's: an update takes 5 ms of it, a report comes every 100 ms, as in a training of 20 s."""

    class Slow(Place):
        def show(self, text: str, share: float | None, picture: str = "") -> None:
            super().show(text, share, picture)
            clock[0] += 0.005

    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    place = Slow()
    live = LiveProgress(place)
    for step in range(200):
        clock[0] = max(clock[0], step / 10)
        live(Progress("training", step, 200))
    live.end("done in")
    assert 8 <= len(place.lines) <= 11
    assert len(place.lines) * 0.005 < 0.005 * clock[0]


def test_a_shell_without_notebook_or_terminal_shows_nothing(shell: Shell) -> None:
    from IPython.utils.capture import capture_output

    with capture_output() as captured, live_progress(shell.ipython) as live:
        live(Progress("step", 1, 2))
    assert captured.outputs == []
    assert captured.stdout + captured.stderr == ""


def test_the_last_line_says_how_it_ended(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(module.sys, "stderr", stream)
    for error, words in ((KeyboardInterrupt, "interrupted after"), (ValueError, "stopped after")):
        with pytest.raises(error), live_progress(shell.ipython) as live:  # noqa: PT012
            live(Progress("step"))
            raise error
        assert words in stream.getvalue().splitlines()[-1]


def test_an_interrupt_that_a_finalizer_swallows_ends_the_work_at_its_next_report(shell: Shell) -> None:
    class Late:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    before = sys.unraisablehook
    reports = []
    with pytest.raises(KeyboardInterrupt), live_progress(shell.ipython) as live:  # noqa: PT012 - which report raises
        for step in range(5):
            reports.append(step)
            live(Progress("training", step, 5))
            if step == 1:
                late = Late()
                del late
    assert reports == [0, 1, 2]
    assert sys.unraisablehook is before


def test_an_interrupt_that_another_thread_swallows_is_none_of_this_work(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def drop() -> None:
        late = Late()
        del late

    passed_on = []
    monkeypatch.setattr(sys, "unraisablehook", passed_on.append)
    with live_progress(shell.ipython) as live:
        for step in range(3):
            live(Progress("training", step, 3))
            other = threading.Thread(target=drop)
            other.start()
            other.join()
    assert [each.exc_type for each in passed_on] == [KeyboardInterrupt] * 3
