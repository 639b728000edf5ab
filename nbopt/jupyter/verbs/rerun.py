"""`%optimize rerun`: repeat a run from its record, and compare the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.errors import OptionError
from nbopt.history import kept_runs, run_named
from nbopt.jupyter.verbs import Verb
from nbopt.options import option

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session
    from nbopt.reproduce import Reproduction
    from nbopt.runs import Run


@dataclass(frozen=True)
class Rerun(Verb):
    """Repeat a run on the bound model: its recipe, seed, threads, measurement and runtime."""

    word: ClassVar[str] = "rerun"
    summary: ClassVar[str] = "repeat a run from its record, and tell whether the two agree"
    takes: ClassVar[tuple[str, ...]] = ("name",)
    needs: ClassVar[tuple[str, ...]] = ("name",)
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize rerun quantize/openvino",
        "%optimize rerun {q8.best(max_drop=0.01)} -o again",
    )

    name: str | Any = option("", "name of the run, first letters of its id, or a variable")

    def run(self, session: Session, request: Request) -> Reproduction:
        """Return the old run, the new one, and whether they agree."""
        from nbopt.reproduce import rerun

        work = session.unchanged or session.current({})
        wanted = self._wanted(session)
        if work.digest != wanted.workload_key:
            work = session.current({})  # what its variables hold now may be what was measured
        with session.alone(request) as progress:
            return rerun(work, wanted, progress=progress)

    def _wanted(self, session: Session) -> Run:
        try:
            return session.run_named(self.name)
        except OptionError:
            # A run of another workload is found among all, so that what differs is told; a slip of the pen is not.
            if not isinstance(self.name, str):
                raise
            try:
                return run_named(kept_runs(), self.name)
            except OptionError:
                pass
            raise
