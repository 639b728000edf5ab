"""Progress in one place: an output that is updated, or one line of a terminal."""

from __future__ import annotations

import contextvars
import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from nbopt.jupyter.curves import Curves
from nbopt.progress import Progress

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

INTERVAL = 0.2
"""Seconds between two updates: a person reads no faster, and a saved notebook keeps only the last."""

RESTING = 400
"""Times as long as an update took until the next: so the updates of a long step cost a quarter of a percent of it, here
and where the front end is slow; what a short step costs beside, to begin and to report, is more."""

SLOWEST = 2.0
"""Seconds between two updates at most, however long they take."""

MOST_EARLY = 3
"""Updates beside that, between two of them, for steps that begin."""

BEAT = 1.0
"""Seconds without an update after which the line is shown again: with a clock that stands still, work seems to."""

LINE = 100
"""Columns of a terminal's line that are used: a longer one would wrap, and could not be written over."""

EARLIEST_GUESS = 0.05
"""Share of a step after which the time that remains is guessed, or `PATIENCE` before that."""

PATIENCE = 10.0
"""Seconds after which it is guessed from whatever was done: of an hour, a twentieth is three minutes."""


class Place(Protocol):
    """Where progress is shown."""

    def show(self, text: str, share: float | None, picture: str = "") -> None:
        """Show a line, how much is done where that is known, and a small curve as HTML."""

    def end(self, text: str, picture: str = "") -> None:
        """Leave a last line."""


def progress_html(text: str, share: float | None, picture: str = "") -> str:
    """Return a line of progress as HTML that an untrusted notebook keeps."""
    meter = "" if share is None else f'<progress value="{share:.3f}" max="1"></progress> '
    return f'<div style="opacity:.8">{picture}{meter}{escape(text)}</div>'


class Output:
    """Show progress in a cell's output, updated in place."""

    def __init__(self) -> None:
        self._id = uuid.uuid4().hex
        self._shown = False

    def show(self, text: str, share: float | None, picture: str = "") -> None:
        """Update the output."""
        self._put(text, progress_html(text, share, picture))

    def end(self, text: str, picture: str = "") -> None:
        """Leave a muted line and the curves, which is what a saved notebook keeps."""
        self._put(text, f'<div style="opacity:.6">{picture}{escape(text)}</div>')

    def _put(self, text: str, html: str) -> None:
        from IPython.display import display

        bundle = {"text/plain": text, "text/html": html}
        display(bundle, raw=True, display_id=self._id, update=self._shown)
        self._shown = True


class TerminalLine:
    """Show progress in the terminal's last line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._width = 0

    def show(self, text: str, share: float | None, picture: str = "") -> None:
        """Write over the line."""
        self._write(text[:LINE])

    def end(self, text: str, picture: str = "") -> None:
        """Write the last line and go on below it."""
        self._write(text)
        self._stream.write("\n")
        self._stream.flush()

    def _write(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)


class Nowhere:
    """Show nothing: there is neither a notebook nor a terminal."""

    def show(self, text: str, share: float | None, picture: str = "") -> None:
        """Do nothing."""

    def end(self, text: str, picture: str = "") -> None:
        """Do nothing."""


class LiveProgress:
    """Take progress as often as it comes, and show it as often as a person can read, until `end` is called.

    Between two reports, which may be minutes apart, a thread lets the time go on.

    Args:
        place: Where it is shown.
        interval: Seconds between two updates at least; more where an update takes long.
    """

    def __init__(self, place: Place, interval: float = INTERVAL) -> None:
        self._place = place
        self._interval = self._pace = interval
        self._started = time.monotonic()
        self._step = ""
        self._step_started = self._started
        self._step_share = self._share = 0.0
        self._last: Progress | None = None
        self._until = 0.0  # when the step ends, as guessed at the last report; 0 where that tells nothing
        self._shown = -math.inf  # when it was shown last, early updates aside
        self._early = 0
        self._curves = Curves()
        self._lock = threading.RLock()  # an interrupt may come inside, and `end` follows it in the same thread
        self._over = threading.Event()
        self._clock: threading.Thread | None = None
        self._interrupted = False
        self.updates = 0

    def __call__(self, progress: Progress) -> None:
        """Take one report.

        Raises:
            KeyboardInterrupt: `interrupt` was called.
        """
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt
        with self._lock:
            self._take(progress, time.monotonic())
        if self._clock is None:
            # What is displayed belongs to the cell that runs, which the thread learns from the context.
            run = contextvars.copy_context().run
            self._clock = threading.Thread(target=run, args=(self._go_on,), daemon=True, name="nbopt-progress")
            self._clock.start()

    def interrupt(self) -> None:
        """Have the next report raise KeyboardInterrupt."""
        self._interrupted = True

    def _take(self, progress: Progress, now: float) -> None:
        share = progress.share or 0.0
        other = progress.what != self._step
        if other or share < self._share:
            # Another step, or the same anew: the next training of several.
            self._step, self._step_started, self._step_share = progress.what, now, share
        self._share, self._last = share, progress
        left = self._left(now - self._step_started)
        self._until = 0.0 if left is None else now + left
        self._curves.take(progress)
        if now >= self._shown + self._pace:
            self._shown, self._early = now, 0
        elif other and self._early < MOST_EARLY:
            # Nothing may follow it for minutes, while the line would go on to name the step before.
            self._early += 1
        else:
            return
        self._show(progress, now)

    def _go_on(self) -> None:
        """Show the last report again, with the time that it is, where no other follows."""
        while not self._over.wait(BEAT / 4):
            with self._lock:
                now = time.monotonic()
                if self._last is not None and now >= self._shown + max(BEAT, self._pace) and not self._over.is_set():
                    self._shown = now
                    self._show(self._last, now)

    def _show(self, progress: Progress, now: float) -> None:
        curve = self._curves.of(progress)
        self._place.show(self._line(progress, now), progress.share, "" if curve is None else curve.picture())
        self.updates += 1
        self._pace = max(self._interval, min(RESTING * (time.monotonic() - now), SLOWEST))

    def _line(self, progress: Progress, now: float) -> str:
        curve = self._curves.of(progress)
        parts = [
            f"{progress.what} {progress.count}".strip(),
            progress.note,
            "" if curve is None else curve.words,
            f"{_seconds(self._until - now)} left" if self._until > now else "",
            f"{_seconds(now - self._started)} so far",
        ]
        return " · ".join(part for part in parts if part)

    def _left(self, spent: float) -> float | None:
        """Return the seconds that remain of this step, by what was done of it, None while that tells nothing."""
        done = self._share - self._step_share
        if done <= 0 or self._share >= 1 or spent <= 1 or (done < EARLIEST_GUESS and spent < PATIENCE):
            return None
        return spent * (1 - self._share) / done

    @property
    def curves(self) -> Curves:
        """Return the curves of what was reported."""
        return self._curves

    def end(self, word: str) -> None:
        """Leave the last line: "done in 12 s". Nothing is shown where nothing was."""
        with self._lock:
            self._over.set()
        if self.updates:
            pictures = "".join(curve.picture() for curve in self._curves.all)
            self._place.end(f"{word} {_seconds(time.monotonic() - self._started)}", pictures)


def _seconds(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


_LISTENERS: list[tuple[int, Callable[[], None]]] = []
"""Who hears of an interrupt that is dropped: the thread that it was meant for, and what to call."""


@contextmanager
def _swallowed_interrupts(heard: Callable[[], None]) -> Iterator[None]:
    """Call a function where Python drops an interrupt of this thread, while the block runs.

    One that arrives in a finalizer or in the callback of a weak reference ends nothing: Python prints it as ignored,
    and the work that the user meant to stop goes on. One that was meant for another thread, such as that of a job of
    the panel, is not this one's.
    """
    before = sys.unraisablehook
    mine = (threading.get_ident(), heard)

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        told = [call for thread, call in _LISTENERS if thread == threading.get_ident()]
        if told and issubclass(unraisable.exc_type, KeyboardInterrupt):
            told[-1]()
        else:
            before(unraisable)

    _LISTENERS.append(mine)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        _LISTENERS.remove(mine)
        if sys.unraisablehook is hook:  # another that came later ends later: it passes on what is not for it
            sys.unraisablehook = before


@contextmanager
def live_progress(shell: InteractiveShell) -> Iterator[LiveProgress]:
    """Show progress while the block runs: in the output of a kernel's cell, or in a terminal's line."""
    place: Place
    if hasattr(shell, "kernel"):
        place = Output()
    elif sys.stderr.isatty():
        place = TerminalLine(sys.stderr)
    else:
        place = Nowhere()
    progress = LiveProgress(place)
    word = "stopped after"
    try:
        with _swallowed_interrupts(progress.interrupt):
            yield progress
        word = "done in"
    except KeyboardInterrupt:
        word = "interrupted after"
        raise
    finally:
        progress.end(word)
