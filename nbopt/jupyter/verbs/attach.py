"""`%optimize attach`: after a reload or a restart, show what has been done, and go on with what can go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from IPython.display import display

from nbopt import history
from nbopt.errors import NbOptError
from nbopt.history import local_time
from nbopt.jupyter.options import Running
from nbopt.jupyter.underway import Underway, all_underway
from nbopt.jupyter.verbs import Verb
from nbopt.options import option
from nbopt.recipe.names import UndefinedName
from nbopt.sheet import Sheet
from nbopt.workload import Workload

if TYPE_CHECKING:
    from nbopt.comparison import Comparison
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session

NOTHING = "no runs are kept here yet"


@dataclass(frozen=True)
class Attach(Verb):
    """Show the panel and its work again, what other kernels are doing, and what a restart cut off; then go on."""

    word: ClassVar[str] = "attach"
    summary: ClassVar[str] = "after a reload or a restart: show what has been done, and go on with what was cut off"
    examples: ClassVar[tuple[str, ...]] = ("%optimize attach", "%optimize attach --no-resume")

    resume: bool = option(True, "go on with what was cut off, where its model and data are in the notebook again")

    def run(self, session: Session, request: Request) -> Comparison | Sheet:
        """Return the kept runs, those included that it went on to measure."""
        if session.panel is not None:
            session.panel.show()
        found = all_underway()
        alive = [each for each in found if each.lives]
        plans = [(each, self._obstacle(session, each)) for each in found if each not in alive]
        rows = [(_begun(each), _words(each, "")) for each in alive]
        rows += [(_begun(each), _words(each, why or "goes on now")) for each, why in plans]
        if rows:
            display(Sheet("begun and not ended", rows=tuple(rows)))
        for each, obstacle in plans:
            if not obstacle:
                with session.aside():
                    self._go_on(session, each)
        runs = session.runs()
        return history.compared(runs) if runs else Sheet(NOTHING, rows=(("start with", history.FIRST),))

    def _obstacle(self, session: Session, cut: Underway) -> str:
        """Return why a piece of work can't go on by itself, "" where it can."""
        if not self.resume:
            return "cut off; not gone on with, as --no-resume says"
        if cut.body:
            return "cut off; run its cell again: what it searched is kept where it named a --study"
        if not cut.bind:
            return "cut off; run its cell again: its model or data had no name"
        try:
            binding = session.read(f"use {cut.bind}").binding
            session.read(cut.line)
        except UndefinedName as error:
            return f"cut off; run the cell that defines {error.name}, then %optimize attach"
        except NbOptError as error:
            return f"cut off, and can't be read again: {error.one_line}"
        try:
            work = Workload(**binding)
        except NbOptError as error:
            return f"cut off, and {cut.bind} can't be bound: {error.one_line}"
        if work.digest != cut.workload_key:
            return "cut off; the model or the data is another now: run its cell, for a comparison of its own"
        return ""

    def _go_on(self, session: Session, cut: Underway) -> None:
        """Do what is left of a piece of work; its record is replaced by that of the new one."""
        session.line = f"use {cut.bind}"
        session.bind(session.read(session.line).binding)
        request = self._rest(cut, session.read(cut.line))
        cut.forget()
        session.line = cut.line
        session.optimize(session.current({}), request)
        session.keep(session.comparison(()), request)

    @staticmethod
    def _rest(cut: Underway, request: Request) -> Request:
        """Return the request for the runtimes that have no row yet; of several seeds it is done anew."""
        running = request.group(Running)
        left = tuple(name for name in cut.planned if name not in cut.runtimes)
        if not left or not cut.runtimes or running.seeds > 1:
            return request
        given: dict[Any, Any] = {**request.given, Running: {**request.given.get(Running, {}), "runtimes": left}}
        return replace(request, given=given)


def _begun(each: Underway) -> str:
    return f"{local_time(each.started)}  %{'%' * bool(each.body)}optimize {each.line}"


def _words(each: Underway, state: str) -> str:
    done = f"{len(each.runtimes)} row{'s' * (len(each.runtimes) != 1)} measured" if each.runtimes else ""
    where = state or f"at work in process {each.pid}: {each.progress or 'beginning'}"
    return " · ".join(part for part in (where, done, each.progress if state else "") if part)
