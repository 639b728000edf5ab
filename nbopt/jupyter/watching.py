"""What a panel shows of its jobs: the one at work, those that wait, what came of the others, and figures of it all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w

from nbopt.comparison import Limits
from nbopt.errors import NbOptError
from nbopt.jupyter.forms import Fold, button, text_html
from nbopt.jupyter.jobs import Job, Jobs
from nbopt.jupyter.progress import LiveProgress, progress_html
from nbopt.render.plots import pareto

if TYPE_CHECKING:
    from nbopt.comparison import Comparison
    from nbopt.jupyter.curves import Curves

MOST_JOBS = 8
"""Jobs in the list: the latest, so that it stays a glance."""

REDRAW = 1.0
"""Seconds between two drawings of a training's large curve."""

_ROW = "opacity:.8;font-size:12px;line-height:1.6"
_BESIDE = "display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start"


class Watch:
    """Show jobs as they go on.

    Args:
        jobs: The kernel's jobs.
        changed: Called when a job began or ended.
        ended: Called with the line of a job that has ended, and the curves of its trainings.
    """

    def __init__(self, jobs: Jobs, changed: Callable[[], None], ended: Callable[[str, Curves], None]) -> None:
        self._jobs, self._changed, self._ended = jobs, changed, ended
        self._live: dict[Job, LiveProgress] = {}
        self._states: dict[Job, str] = {}
        self._lock = threading.RLock()
        self._pareto = self._learning = ""
        self._due = 0.0
        self.cancel = button(
            "Cancel",
            "end what is at work; what was measured is kept, and once more ends what it still measures",
            "danger",
        )
        self.cancel.on_click(lambda _: self._cancel())
        self.state = w.HTML()
        self.queue = w.VBox()
        self.figures = w.HTML()
        self._fold = Fold("figures: quality against speed, learning curves", [self.figures], opened=True)
        self.box = w.VBox([self.state, self.queue, self._fold.box], layout=w.Layout(width="100%"))
        self._draw()

    def begin(self) -> None:
        """Watch the jobs from here on."""
        self.show()
        self._jobs.watch(self._told)

    def show(self) -> None:
        """Show the jobs."""
        current = self._jobs.current
        self.cancel.disabled = current is None or current.interrupting
        if current is None:
            self.state.value = ""
        before, self.queue.children = self.queue.children, tuple(map(self._row, list(self._jobs)[-MOST_JOBS:]))
        for row in before:
            row.close()

    def compared(self, comparison: Comparison, limits: Limits | None = None) -> None:
        """Draw the front of what was measured so far.

        Args:
            comparison: The runs.
            limits: What is demanded; what breaks it is hollow.
        """
        try:
            figure = pareto(comparison, limits or Limits())
        except NbOptError:
            return  # there is no speed yet: the figure comes with the first
        self._pareto = f'<div style="flex:2 1 30em;max-width:52em">{figure.image}</div>'
        self._draw()

    def _cancel(self) -> None:
        job = self._jobs.current
        if job is not None:
            self._jobs.cancel(job)

    def _told(self, job: Job) -> None:
        """Take a change of a job, in the thread of it, and show it as often as a person can read."""
        # The thread that adds a job and the one that begins it tell of it at once: the last to show must be the last
        # to look.
        with self._lock:
            self._take(job)

    def _take(self, job: Job) -> None:
        state = f"{job.state}{job.stopping}{job.interrupting}"
        changed = self._states.get(job) != state
        self._states[job] = state
        live = self._live.get(job)
        if job.state == "running" and job.progress is not None:
            live = self._live.setdefault(job, LiveProgress(_Line(self.state, job)))
            live(job.progress)
            self._learn(live.curves)
        if changed and job.is_over and live is not None:
            live.end("")
            self._due = 0.0
            self._learn(live.curves)
            self._ended(job.line, live.curves)
        if changed:
            self.show()
            self._changed()

    def _learn(self, curves: Curves) -> None:
        """Draw the curve of the training that is at work, or was the last, as often as a person looks."""
        now = time.monotonic()
        if curves.now is None or now < self._due:
            return
        self._due = now + REDRAW
        picture = curves.now.figure()
        if picture:
            self._learning = f'<div style="flex:1 1 18em;max-width:33em">{picture}</div>'
            self._draw()

    def _draw(self) -> None:
        found = self._pareto + self._learning
        self.figures.value = f'<div style="{_BESIDE}">{found}</div>' if found else ""
        self._fold.box.layout.display = "" if found else "none"

    def _row(self, job: Job) -> w.Widget:
        words = {"done": f"done in {job.seconds:.0f} s", "failed": f"failed: {job.error}"}.get(job.state, job.state)
        text = w.HTML(text_html(f"{job.line}: {words}", _ROW))
        if job.state != "waiting":
            return text
        drop = button("take out", f"do not begin {job.line}")
        drop.on_click(lambda _: self._jobs.cancel(job))
        return w.HBox([text, drop], layout=w.Layout(flex_flow="row wrap"))


class _Line:
    """Show a job's progress in a widget; what stays of it is the list of jobs."""

    def __init__(self, widget: Any, job: Job) -> None:
        self._widget, self._job = widget, job

    def show(self, text: str, share: float | None, picture: str = "") -> None:
        word = "cancelling: " if self._job.stopping else ""
        self._widget.value = progress_html(word + text, share, picture)

    def end(self, text: str, picture: str = "") -> None:
        self._widget.value = ""
