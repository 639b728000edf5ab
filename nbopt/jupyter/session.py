"""Session: what `%optimize` has bound in one shell, and the work that verbs do with it."""

from __future__ import annotations

import hashlib
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
from nbopt.jupyter.namespace import is_data, is_model, names_of
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
        self._weights = b""
        self._bind_line = ""

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
        before = dict(self._given)
        if "model" in given and given["model"] is not before.get("model"):
            # The name was the other model's.
            before.pop("name", None)
        wanted = {**before, **given}
        if wanted.get("model") is None:
            raise ModelError("a model", "none is bound yet", self._suggestion())
        self.workload = Workload(**wanted)
        self._given = wanted
        self._bind_line = "" if self.body else self._named(wanted)
        self._weights = self._weights_now(self.workload)
        return self.workload

    def current(self, given: Mapping[str, Any]) -> Workload:
        """Return the bound workload, bound anew where the line says so or the model was trained since.

        Raises:
            ModelError: There is no model yet, or it can't be used.
            DataError: The data can't be used.
        """
        if given or self.workload is None:
            return self.bind(given)
        if self._weights_now(self.workload) != self._weights:
            return self.bind({})
        return self.workload

    def _named(self, given: Mapping[str, Any]) -> str:
        """Return the words after `%optimize use` that bind the same again, "" where a value has no name here."""
        words: list[str] = []
        for name, value in given.items():
            text = value if isinstance(value, str) else self.name_of(value)
            if value is not None and not text:
                return ""
            if value is not None:
                plain = is_name(text) or not isinstance(value, str)
                words += [text] if name == "model" else [f"--{name}", text if plain else repr(text)]
        return " ".join(words)

    def name_of(self, value: Any) -> str:
        """Return the variable that holds a value, or the variables of a tuple by commas; "" where there is none."""
        found = names_of(self.names, lambda held: held is value)
        if found:
            return found[-1]
        if isinstance(value, tuple) and value:
            parts = [self.name_of(part) for part in value]
            return ",".join(parts) if all(parts) else ""
        return ""

    @staticmethod
    def _weights_now(work: Workload) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for name, value in work.framework.weights(work.model):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.digest()

    def _suggestion(self) -> str:
        """Return the line that binds, with names that stand in this notebook."""
        models = names_of(self.names, is_model) or ["model"]
        data = names_of(self.names, is_data)
        train = next((name for name in data if "train" in name), "train_dl")
        valid = next((name for name in data if name != train and "train" not in name), "valid_dl")
        return f"%optimize use {models[-1]} --train {train} --valid {valid}"

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
        with self.kept_when_stopped(request), live_progress(self.shell) as progress:
            while not self.jobs.wait(WAIT):
                # Two trainings at once would draw from one another's random numbers.
                job = self.jobs.current
                progress(Progress("waiting for the panel", note=job.line if job is not None else ""))
            return self.carry_out(work, request, progress, self.line)

    def carry_out(self, work: Workload, request: Request, progress: ProgressCallback, line: str) -> Comparison:
        """Run the request's recipe in this thread, kept on disk as under way while it does.

        Args:
            work: The workload.
            request: The recipe and the shared options.
            progress: Told how far it is.
            line: What follows `%optimize`.

        Raises:
            Interrupted: It was interrupted; its `comparison` has the rows that were finished.
            NbOptError: As `nbopt.optimize`.
        """
        from nbopt.loop import optimize

        recipe = [request.recipe] if request.recipe.techniques else []
        # Every split is read through, for its content and for the rows that splits share: as long as an epoch.
        progress(Progress("reading the data", note="the rows of each split, and which of them two splits share"))
        begun = Underway(
            line,
            self._bind_line,
            self.body,
            work.name,
            work.digest,
            request.recipe.text(),
            request.recipe.seed,
        )
        with noted(begun, self._interrupted) as note:

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
