"""Session: what `%optimize` has bound in one shell, and the work that verbs do with it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import display

from nbopt import history
from nbopt.comparison import Comparison
from nbopt.errors import Interrupted, ModelError, NbOptError, OptionError
from nbopt.jupyter.namespace import is_data, is_model, names_of
from nbopt.jupyter.options import Output, Request, Running
from nbopt.jupyter.progress import live_progress
from nbopt.recipe.names import evaluate, is_name, variable
from nbopt.reproduce import Reproduction
from nbopt.runs import Run
from nbopt.workload import Workload

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_SUBSCRIPT = re.compile(r"([^\W\d]\w*)\[.+\]", re.DOTALL)


class Session:
    """Hold the workload that is bound in a shell.

    Args:
        shell: The IPython shell.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.workload: Workload | None = None
        self._given: dict[str, Any] = {}
        self._weights = b""

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
        from nbopt.loop import optimize

        running = request.group(Running).arguments()
        recipe = [request.recipe] if request.recipe.techniques else []
        with self.kept_when_stopped(request), live_progress(self.shell) as progress:
            return optimize(work, *recipe, **running, progress=progress)

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
            held = self._held(name)
            chosen += history.compared(self.runs(), [name]).runs if held is None else held
        # Each comparison brings its own baselines, measured beside it; the newest of each stands for all.
        baselines = history.latest(sorted((r for r in chosen if r.is_baseline), key=lambda run: run.created))
        rest = {run.id: run for run in chosen if not run.is_baseline}
        return Comparison(history.renamed(run) for run in (*baselines, *rest.values()))

    def run_named(self, name: Any) -> Run:
        """Return the run that a name, a variable or an object means.

        Raises:
            OptionError: It means none, or several.
        """
        held = self._held(name)
        if held is None:
            return history.run_named(self.runs() or history.kept_runs(), str(name))
        if len(held) != 1:
            example = f'{{{name}["{held[-1].name}"]}}' if held else "another variable"
            raise OptionError("one run", f"{name!r:.60}, which holds {len(held)}", f"{example}, or {{{name}.best()}}")
        return held[0]

    def _held(self, name: Any) -> list[Run] | None:
        """Return the runs that an object or a variable holds, None where it is no such thing."""
        value = name
        if isinstance(name, str):
            subscript = _SUBSCRIPT.fullmatch(name)
            if is_name(name):
                value = variable(name, self.names)
            elif subscript and subscript[1] in self.names:
                value = evaluate(name, self.names, "the run")
            else:
                return None
        found = _runs_in(value)
        if found is None and not isinstance(name, str):
            raise OptionError("a run or a comparison", f"a {type(value).__name__}", "%optimize runs lists them")
        return found


def _runs_in(value: Any) -> list[Run] | None:
    if isinstance(value, Run):
        return [value]
    if isinstance(value, history.RunCard):
        return [value.run]
    if isinstance(value, (Comparison, history.RunList)):
        return list(value)
    if isinstance(value, Reproduction):
        return list(value.comparison)
    if isinstance(value, (list, tuple)) and value:
        parts = [_runs_in(part) for part in value]
        return None if None in parts else [run for part in parts for run in _flat(part)]
    return None


def _flat(runs: Iterable[Run] | None) -> Iterable[Run]:
    return runs or ()
