"""The panel's results: a normal output of the notebook, which grows, and stays when the kernel has gone."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from html import escape
from typing import Any

from IPython.display import display

from nbopt.comparison import Comparison
from nbopt.history import latest
from nbopt.jupyter.curves import Curves
from nbopt.runs import Run

MOST_TRAININGS = 8
"""Lines whose curves are kept: a saved notebook carries them."""

EMPTY = "Results will stand here as they are measured, and stay in the saved notebook."


class Results:
    """Hold rows and show them in one output, which is updated in place.

    A widget would vanish with the kernel: the rows are an output of their own, in the form of any result.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Run] = {}
        self._curves: dict[str, str] = {}
        self._id = self._curves_id = ""

    @property
    def comparison(self) -> Comparison:
        """Return the newest run of each kind, of every model that was worked on."""
        return Comparison(latest(self._by_age))

    @property
    def newest(self) -> Comparison:
        """Return those of the model that was worked on last: the others' figures do not compare with its own."""
        key = self._by_age[-1].workload_key if self._rows else ""
        return Comparison([run for run in self.comparison if run.workload_key == key])

    @property
    def _by_age(self) -> list[Run]:
        return sorted(self._rows.values(), key=lambda run: run.created)

    def show(self) -> None:
        """Show them in the output of the cell that is running; from here on that one is updated."""
        self._id, self._curves_id = uuid.uuid4().hex, uuid.uuid4().hex
        display(self._bundle(), raw=True, display_id=self._id)
        display(self._trainings(), raw=True, display_id=self._curves_id)

    def add(self, runs: Iterable[Run]) -> bool:
        """Add rows and show them; tell whether one of them is new."""
        # A comparison makes names unique by `#2`; here they are numbered anew.
        fresh = {run.id: run for run in runs if run.id not in self._rows}
        if not fresh:
            return False
        self._rows |= fresh
        if self._id:
            display(self._bundle(), raw=True, display_id=self._id, update=True)
        return True

    def trained(self, line: str, curves: Curves) -> None:
        """Show the curves of the trainings of a piece of work, which also stay; the newest of each line."""
        pictures = "".join(curve.picture() for curve in curves.all)
        if not pictures:
            return
        self._curves.pop(line, None)
        self._curves = dict([*self._curves.items(), (line, pictures)][-MOST_TRAININGS:])
        if self._curves_id:
            display(self._trainings(), raw=True, display_id=self._curves_id, update=True)

    def _trainings(self) -> dict[str, Any]:
        rows = [
            f'<div style="margin:2px 0">{pictures}<code>{escape(line)}</code></div>'
            for line, pictures in self._curves.items()
        ]
        title = "<div>Losses of the trainings</div>" if rows else ""
        return {"text/plain": "", "text/html": f'<div style="opacity:.8">{title}{"".join(rows)}</div>'}

    def _bundle(self) -> dict[str, Any]:
        if not self._rows:
            return {"text/plain": EMPTY, "text/html": f'<div style="opacity:.7">{EMPTY}</div>'}
        import nbopt.render  # noqa: F401 - a Comparison shows itself once this is imported

        return self.comparison._repr_mimebundle_()
