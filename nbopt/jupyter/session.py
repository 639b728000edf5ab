"""Session: what `%optimize` has bound in one shell, and the work that verbs do with it."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import display

from nbopt import history
from nbopt.comparison import Comparison
from nbopt.errors import Interrupted, ModelError, NbOptError, OptionError
from nbopt.jupyter.configurable import LazySettings
from nbopt.jupyter.jobs import Jobs
from nbopt.jupyter.lookup import by_id, held
from nbopt.jupyter.namespace import is_like, is_same, name_of, suggestion
from nbopt.jupyter.options import Output, Request, Running
from nbopt.jupyter.progress import live_progress
from nbopt.jupyter.underway import Underway, noted
from nbopt.progress import Progress, ProgressCallback
from nbopt.recipe.names import is_name
from nbopt.runs import Run
from nbopt.workload import Workload

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

WAIT = 0.2
"""Seconds between two looks at whether the panel's jobs have ended; an interrupt comes through in between."""


@dataclass(frozen=True)
class Applied:
    """Hold what a variable was before a run's model was put into it.

    Args:
        name: The variable.
        before: What it held, `MISSING` where it was not there.
        run: The run's name.
    """

    name: str
    before: Any
    run: str


MISSING = object()


class Session:
    """Hold the workload that is bound in a shell.

    Args:
        shell: The IPython shell.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.workload: Workload | None = None
        self.jobs = Jobs()
        self.panel: Any = None
        self.new_panel: Callable[[Session], Any]
        """Makes a panel; set by the magics, as is `read`."""
        self.settings: LazySettings | None = None
        self.read: Callable[[str], Request]
        """Reads what follows `%optimize`."""
        self.line = ""
        self.body = ""
        self.undone: list[Applied] = []
        self.shown = Comparison(())
        """The comparison that was shown last, in which a line looks up names."""
        self._given: dict[str, Any] = {}
        self._variables: dict[str, str] = {}
        self._weights = b""
        self.bind_line = ""
        """What follows `%optimize use` to bind the same again, "" where a value has no name."""

    @property
    def defaults(self) -> dict[str, Any]:
        """Return what `%config NbOpt` gives lines that do not say otherwise."""
        return self.settings.chosen() if self.settings is not None else {}

    @property
    def given(self) -> Mapping[str, Any]:
        """Return what the workload was bound with."""
        return self._given

    @property
    def names(self) -> dict[str, Any]:
        """Return the notebook's variables."""
        return self.shell.user_ns

    def bind(self, given: Mapping[str, Any]) -> Workload:
        """Bind a model and data; what is not given stays as it was bound before.

        Raises:
            ModelError: There is no model yet, or it can't be used.
            DataError: The data can't be used.
        """
        before = {**self._given, **self._replaced()}
        if "model" in given and given["model"] is not before.get("model"):
            # The name was the other model's.
            before.pop("name", None)
        wanted = {**before, **given}
        if wanted.get("model") is None:
            raise ModelError("a model", "none is bound yet", suggestion(self.names))
        self.workload = Workload(**wanted)
        self._given = wanted
        self._variables = self._variables_of(wanted)
        self.bind_line = "" if self.body else self._named(wanted)
        self._weights = self._weights_now(self.workload)
        return self.workload

    def current(self, given: Mapping[str, Any]) -> Workload:
        """Return the bound workload, bound anew where the line says so or the model was trained since.

        Where a variable of it holds another model now, or other data, that is bound, and the card is shown.

        Raises:
            ModelError: There is no model yet, or it can't be used.
            DataError: The data can't be used.
        """
        replaced = self._replaced()
        if given or self.workload is None or replaced:
            work = self.bind(given)
            if replaced.keys() - given.keys():
                self.show_card(work)
            return work
        return self.unchanged or self.bind({})

    @property
    def unchanged(self) -> Workload | None:
        """Return the workload as it was bound, None where there is none or its model was trained since."""
        work = self.workload
        return work if work is not None and self._weights_now(work) == self._weights else None

    def _named(self, given: Mapping[str, Any]) -> str:
        """Return the words after `%optimize use` that bind the same again, "" where a value has no name here."""
        words: list[str] = []
        for name, value in given.items():
            text = value if isinstance(value, str) else self._variables.get(name, "")
            if value is not None and not text:
                return ""
            if value is not None:
                plain = is_name(text) or not isinstance(value, str)
                words += [text] if name == "model" else [f"--{name}", text if plain else repr(text)]
        return " ".join(words)

    def _replaced(self) -> dict[str, Any]:
        """Return what the variables of the bound values hold now, where that is another object of their kind."""
        found = {}
        for option, text in self._variables.items():
            parts = text.split(",")
            if all(part in self.names for part in parts):
                now = tuple(self.names[part] for part in parts) if len(parts) > 1 else self.names[text]
                if not is_same(now, self._given[option]) and is_like(now, self._given[option]):
                    found[option] = now
        return found

    def _variables_of(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the variables of bound values: of several that hold one, that of the line, or that of before."""
        said = re.findall(r"[^\W\d]\w*", self.line)
        liked = [*said, *(part for text in self._variables.values() for part in text.split(","))]
        objects = {name: value for name, value in given.items() if value is not None and not isinstance(value, str)}
        return {name: text for name, value in objects.items() if (text := self.name_of(value, liked))}

    def name_of(self, value: Any, liked: Sequence[str] = ()) -> str:
        """Return the variable that holds a value, or the variables of a tuple by commas; "" where there is none.

        Args:
            value: The value.
            liked: Which to take of several that hold it, the first first; else the last is taken.
        """
        return name_of(value, self.names, liked)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let other work be bound while the block runs; what was bound before is bound again, where anything was."""
        before = (self.workload, self._given, self._variables, self._weights, self.bind_line)
        self.workload, self._given, self._variables = None, {}, {}
        try:
            yield
        finally:
            if before[0] is not None:
                self.workload, self._given, self._variables, self._weights, self.bind_line = before

    @staticmethod
    def _weights_now(work: Workload) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for name, value in work.framework.weights(work.model):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.digest()

    def show_card(self, work: Workload) -> None:
        """Show what is bound and what was inferred."""
        from nbopt.render import workload_card

        display(workload_card(work.describe()), raw=True)

    def optimize(self, work: Workload, request: Request) -> Comparison:
        """Run the request's recipe on the workload; no technique measures the baselines.

        Raises:
            Interrupted: The user interrupted; what was done is bound and shown.
            NbOptError: A limit was broken or the work stopped; the rows so far are bound and shown.
        """
        begun = self.begun(work, request, self.line)
        with self.alone(request) as progress:
            return self.carry_out(work, request, progress, begun)

    @contextmanager
    def alone(self, request: Request) -> Iterator[ProgressCallback]:
        """Give a cell its progress once the panel's jobs have ended, and keep what is done where it is stopped."""
        with self.kept_when_stopped(request), live_progress(self.shell) as progress:
            while not self.jobs.wait(WAIT):
                # Two trainings at once would draw from one another's random numbers.
                job = self.jobs.current
                progress(Progress("waiting for the panel", note=job.line if job is not None else ""))
            yield progress

    def begun(self, work: Workload, request: Request, line: str) -> Underway:
        """Return the record of a piece of work on what is bound now, which another thread may begin later."""
        text, seed = request.recipe.text(), request.recipe.seed
        return Underway(line, self.bind_line, self.body, work.name, recipe=text, seed=seed)

    def carry_out(self, work: Workload, request: Request, progress: ProgressCallback, begun: Underway) -> Comparison:
        """Run the request's recipe in this thread, kept on disk as under way while it does.

        Args:
            work: The workload.
            request: The recipe and the shared options.
            progress: Told how far it is.
            begun: Its record.

        Raises:
            Interrupted: It was interrupted; its `comparison` has the rows that were finished.
            NbOptError: As `nbopt.optimize`.
        """
        from nbopt.loop import optimize

        recipe = [request.recipe] if request.recipe.techniques else []
        # Every split is read through, for its content and for the rows that splits share: as long as an epoch.
        progress(Progress("reading the data", note="the rows of each split, and which of them two splits share"))
        with noted(begun.begins(work.digest), self._interrupted) as note:

            def told(each: Progress) -> None:
                note(each)
                progress(each)

            return optimize(work, *recipe, **request.group(Running).arguments(), progress=told)

    def _interrupted(self, work: Underway) -> None:
        """Forget a work that was interrupted once the kernel goes on: a restart interrupts too, and no cell follows."""
        if threading.current_thread() is not threading.main_thread():
            work.forget()  # a job of the panel that was cancelled
            return
        events = self.shell.events

        def next_cell(*_: Any) -> None:
            events.unregister("pre_run_cell", next_cell)
            work.forget()

        events.register("pre_run_cell", next_cell)

    @contextmanager
    def kept_when_stopped(self, request: Request) -> Iterator[None]:
        """Bind and show the rows that were measured before work stopped, by the user or by an error."""
        try:
            yield
        except (Interrupted, NbOptError) as error:
            partial = error.comparison
            if partial is not None and len(partial):
                self.keep(partial, request)
                display(partial)
            raise

    def keep(self, result: Any, request: Request) -> None:
        """Bind a result to the variable that `-o` names."""
        name = request.group(Output).o
        if name is not None:
            self.names[name] = result

    def runs(self) -> list[Run]:
        """Return the kept runs of the bound model, or of the newest one where none is bound; oldest first."""
        if self.workload is not None:
            return history.kept_runs(self.workload.digest)
        return history.newest_workload(history.kept_runs())

    def comparison(self, names: Sequence[Any]) -> Comparison:
        """Return the kept runs, or those of variables and names, in one comparison.

        Raises:
            NbOptError: There are no runs.
            OptionError: A name fits neither a variable nor a run.
        """
        if not names:
            return history.compared(self.runs())
        chosen: list[Run] = []
        for name in names:
            found = held(name, self.names)
            if found is None and (row := self._shown_row(name)):
                found = [*(run for run in self.shown if run.is_baseline), *row]
            chosen += history.compared(self.runs(), [name]).runs if found is None else found
        # Each comparison brings its own baselines, measured beside it; the newest of each stands for all.
        baselines = history.latest(sorted((r for r in chosen if r.is_baseline), key=lambda run: run.created))
        rest = {run.id: run for run in chosen if not run.is_baseline}
        return Comparison(history.renamed(run) for run in (*baselines, *rest.values()))

    def run_named(self, name: Any) -> Run:
        """Return the run that a name, a variable or an object means.

        A text is looked up among the ids of all kept runs, then in the table that was shown last, as that has it,
        then among the runs of the bound model, whose newest of a name has it alone.

        Raises:
            OptionError: It means none, or several.
        """
        found = held(name, self.names)
        if found is None:
            found = by_id(name) or self._shown_row(name)
            return history.run_named(found or self.runs() or history.kept_runs(), name)
        if len(found) != 1:
            example = f'{{{name}["{found[-1].name}"]}}' if found else "another variable"
            raise OptionError("one run", f"{name!r:.60}, which holds {len(found)}", f"{example}, or {{{name}.best()}}")
        return found[0]

    def _shown_row(self, name: str) -> list[Run]:
        return [run for run in self.shown if run.name == name]

    def take_shown(self, comparison: Comparison) -> dict[str, Any]:
        """Return what the shell shows of a comparison; its names are from now on those of its rows."""
        self.shown = comparison
        return comparison._repr_mimebundle_()
