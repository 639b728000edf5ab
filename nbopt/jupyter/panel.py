"""The panel: forms made from the declarations, over the same backend as the magics; each click is a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ipywidgets as w
from IPython.display import display

from nbopt.comparison import Comparison, Limits
from nbopt.errors import ModelError, NbOptError
from nbopt.history import kept_runs, latest
from nbopt.jupyter.arguments import read_line
from nbopt.jupyter.choices import Choices
from nbopt.jupyter.command import run as run_line
from nbopt.jupyter.fields import line_of
from nbopt.jupyter.forms import LABEL, Fold, Form, Step, button, code_html, control_layout, text_html
from nbopt.jupyter.jobs import Job
from nbopt.jupyter.options import Output, Running
from nbopt.jupyter.results import Results
from nbopt.jupyter.watching import Watch
from nbopt.progress import Progress, ProgressCallback
from nbopt.render.view import View
from nbopt.techniques import all_techniques

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session
    from nbopt.jupyter.underway import Underway
    from nbopt.workload import Workload

NOT_LIVE = "nbopt's panel needs a running kernel: run the cell again. Its results are the output below."
_LONG = "40em"
_TITLE = "font-weight:600;margin:8px 0 2px 0"
_BAD = "color:#e0483e"


class Panel:
    """Hold the widgets, and what was done with them.

    Args:
        session: The shell's session: what it has bound, its jobs.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.results = Results()
        self._done: list[str] = []
        self._offered = ""
        self.watch = Watch(session.jobs, self._offer, self.results.trained)
        self._build()
        self.refresh()
        self.watch.begin()

    # what is seen

    def _build(self) -> None:
        line = w.Layout(flex_flow="row wrap", width="100%", align_items="center")
        self.choices = Choices(self._session, self._changed)
        self.again = button("look again", "find the models and the data that the notebook has now")
        self.add_step = button("then...", "one more technique, after those before it")
        self.drop_step = button("without the last", "take the last technique away")
        self.steps = [Step(quickest(), self._session.names, self._changed)]
        self._steps_box = w.VBox()
        self.running = Form("", Running, self._session.names, self._changed)
        self.output = Form("", Output, self._session.names, self._changed)
        shared = Fold("running and measuring", [self.running.box, self.output.box])
        self.preview = w.HTML()
        self.start = button("Run", "do it; where something is at work, after that", "primary")
        self.insert = button("Insert as a cell", "the magics of everything that was done here, as a cell")
        self.message = w.HTML()
        self.chosen = w.Dropdown(options=[("no run yet", "")], description="run", style=LABEL)
        self.chosen.layout = control_layout(_LONG)
        self.variable = _text("variable", "fast_model", "variable that takes the run's model")
        self.path = _text("file", "model", "file to write; its ending may be left out")
        self.apply = button("Apply", "put the run's model into a variable")
        self.export = button("Export", "write the run's file")
        self._take = w.VBox(
            [
                w.HTML(text_html("Take a result", _TITLE)),
                self.chosen,
                w.HBox([self.variable, self.apply], layout=line),
                w.HBox([self.path, self.export], layout=line),
            ]
        )
        self.box = w.VBox(
            [
                w.HTML(text_html("What is optimized", _TITLE)),
                *self.choices.rows(line),
                w.HBox([self.again]),
                w.HTML(text_html("What is done", _TITLE)),
                self._steps_box,
                w.HBox([self.add_step, self.drop_step], layout=line),
                shared.box,
                self.preview,
                w.HBox([self.start, self.watch.cancel, self.insert], layout=line),
                self.message,
                self.watch.box,
                self._take,
            ],
            layout=w.Layout(width="100%", max_width="1240px"),
        )
        self.again.on_click(lambda _: self.refresh())
        self.add_step.on_click(lambda _: self._more(1))
        self.drop_step.on_click(lambda _: self._more(-1))
        self.start.on_click(lambda _: self._guarded(self._run))
        self.insert.on_click(lambda _: self._insert())
        self.apply.on_click(lambda _: self._guarded(partial(self._take_away, "apply")))
        self.export.on_click(lambda _: self._guarded(partial(self._take_away, "export")))
        # The lab extension keeps the notebook's one-letter commands away from it, by this name.
        self.box.add_class("nbopt-Panel")
        self._more(0)

    def show(self) -> None:
        """Show the panel, and its results as an output of their own below it."""
        self.refresh()
        shown = self.box._repr_mimebundle_()
        display({**shown, "text/plain": NOT_LIVE}, raw=True)
        self.results.show()

    def refresh(self) -> None:
        """Offer the models and the data that the notebook has now; what was chosen stays where it is still there."""
        self.choices.refresh()
        self._changed()
        self.watch.show()
        self._offer()

    def _more(self, count: int) -> None:
        if count > 0:
            chosen = {step.choice.value for step in self.steps}
            word = quickest() if quickest() not in chosen else ""
            self.steps.append(Step(word, self._session.names, self._changed))
        elif count < 0 and len(self.steps) > 1:
            self.steps.pop()
        self._steps_box.children = tuple(step.box for step in self.steps)
        self.drop_step.disabled = len(self.steps) == 1
        self._changed()

    @property
    def lines(self) -> list[str]:
        """Return the magics that a click on Run stands for."""
        bound = self.choices.words
        self.running.start_with(self._session.defaults)
        forms = [step.form.filled for step in self.steps if step.form is not None]
        line = line_of(forms, [self.running.filled, self.output.filled], bound)
        return [line] if not forms or not self.choices.binding else [f"%optimize use {bound}", line]

    def _changed(self) -> None:
        if not hasattr(self, "box"):
            return  # while it is being built
        self.start.disabled = not self.choices["model"].value
        try:
            self.preview.value = code_html(self.lines)
        except NbOptError as error:
            # A variable that was chosen is gone since: "look again" offers what there is.
            self.preview.value = text_html(str(error), _BAD)

    # what is done

    def _guarded(self, act: Any) -> None:
        """Do something, and show what is wrong with it where something is."""
        try:
            act()
        except NbOptError as error:
            self._say(str(error), bad=True)

    def _run(self) -> None:
        faults = [fault for form in self._forms() for fault in form.faults]
        if faults:
            self._say(faults[0], bad=True)
            return
        if not self.choices["model"].value:
            raise ModelError("a model", "none is chosen", "run the cell that makes it, then look again")
        lines = self.lines
        binding = self.choices.binding
        command = read_line(lines[-1].removeprefix("%optimize "), self._session.names, self._session.defaults)
        self._session.line, self._session.body = f"use {self.choices.words}", ""
        # A queued job works on what was chosen when it was queued.
        work = self._session.bind(binding) if binding else self._session.current({})
        begun = self._session.begun(work, command.request, lines[-1].removeprefix("%optimize "))
        job = Job(lines[-1], partial(self._work, work, command.request, begun))
        self._done += [line for line in lines if line not in self._done or line == lines[-1]]
        waits = not self._session.jobs.idle
        self._session.jobs.add(job)
        self._say("\n".join([*work.notes, *([f"queued: {lines[-1]}"] if waits else [])]))

    def _forms(self) -> Sequence[Form]:
        return [*(step.form for step in self.steps if step.form is not None), self.running, self.output]

    def _work(self, work: Workload, request: Request, begun: Underway, report: ProgressCallback) -> Comparison:
        """Do a job's work, in the jobs' thread; rows are shown as soon as they are in the store."""
        began, key = _now(), work.digest

        def told(progress: Progress) -> None:
            report(progress)
            if progress.what == "measured":
                self._show(Comparison([run for run in kept_runs(key) if run.created >= began]), request)

        try:
            result = self._session.carry_out(work, request, told, begun)
        except (NbOptError, KeyboardInterrupt) as error:
            partial_rows = getattr(error, "comparison", None)
            if partial_rows is not None:
                self._keep(partial_rows, request)
            raise
        self._keep(result, request)
        return result

    def _keep(self, rows: Comparison, request: Request) -> None:
        self._session.keep(rows, request)
        self._show(rows, request)

    def _show(self, rows: Comparison, request: Request) -> None:
        self.results.add(rows)
        self._session.shown = self.results.comparison
        self.watch.compared(self.results.newest, _limits(request))
        self._offer()

    def _take_away(self, verb: str) -> None:
        if not self.chosen.value:
            raise NbOptError("a run to take", "none is chosen", "run something first")
        rest = f"-o {self.variable.value}" if verb == "apply" else self.path.value
        told = run_line(self._session, f"{verb} {self.chosen.value} {rest}".strip())
        self._done.append(f"%optimize {verb} {self._word_of(self.chosen.value)} {rest}".strip())
        self._say(repr(told))
        if verb == "apply":
            self.refresh()

    def _word_of(self, run_id: str) -> str:
        """Return what a line calls a run: its name where no other has it, else the first letters of its id.

        With a name the line also suits the run that a later day makes.
        """
        kept = latest(self._session.runs())
        run = next((run for run in kept if run.id == run_id), None)
        alone = run is not None and [each.name for each in kept].count(run.name) == 1
        return run.name if run is not None and alone else run_id[:8]

    def _insert(self) -> None:
        if not self._done:
            self._say("Nothing was done here yet.")
            return
        self._session.shell.set_next_input("\n".join(self._done), replace=False)
        # A kernel can hand a cell to the front end only with the reply to a cell that was run.
        self._say("The cell comes below the next cell that you run:", self._done)

    # what is told

    def _say(self, text: str, lines: Sequence[str] = (), *, bad: bool = False) -> None:
        shown = text_html(text, f"white-space:pre-wrap;margin:4px 0;{_BAD if bad else ''}") if text else ""
        self.message.value = f'<div role="status">{shown}{code_html(lines) if lines else ""}</div>'

    def _offer(self) -> None:
        """Offer the runs that can be taken, the best first."""
        taken = [run for run in self.results.comparison if not run.failed and not run.is_control]
        self._take.layout.display = "" if taken else "none"
        several = len({run.workload_key for run in taken}) > 1
        options = [(f"{run.name} of {run.workload}" if several else run.name, run.id) for run in taken]
        if options == [option for option in self.chosen.options if option[1]]:
            return
        # What nobody chose follows the best.
        kept = self.chosen.value if self.chosen.value != self._offered else ""
        ids = [run.id for run in taken]
        self.chosen.options = options or [("no run yet", "")]
        newest = self.results.newest.runs
        best = View(newest).best if newest else None
        self._offered = best.id if best is not None and best.id in ids else next(iter(ids), "")
        self.chosen.value = kept if kept in ids and kept else self._offered


def quickest() -> str:
    """Return the technique that a panel begins with: one that works on exported files, since it need not train."""
    found = all_techniques()
    return next((word for word, each in found.items() if each.works_on_files), next(iter(found)))


def _limits(request: Request) -> Limits:
    running = request.group(Running)
    return Limits(**{spec.name: getattr(running, spec.name) for spec in dataclasses.fields(Limits)})


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _text(label: str, value: str, tooltip: str) -> Any:
    return w.Text(value=value, description=label, tooltip=tooltip, style=LABEL, layout=control_layout())
