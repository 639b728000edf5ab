"""`%optimize runs`: what the store keeps, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nbopt.history import RunList, kept_runs, run_list
from nbopt.jupyter.verbs import Verb
from nbopt.options import option

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Runs(Verb):
    """List the runs that are on disk, those before a restart of the kernel included."""

    word: ClassVar[str] = "runs"
    summary: ClassVar[str] = "list the runs that are kept, newest first"
    examples: ClassVar[tuple[str, ...]] = ("%optimize runs", "%optimize runs --all --last 20")

    all: bool = option(False, "runs of every model, not of the bound one alone")
    last: int | None = option(None, "how many", low=1)

    def run(self, session: Session, request: Request) -> RunList:
        """Return the list."""
        work = None if self.all else session.workload
        runs = kept_runs(None if work is None else work.digest)
        return run_list(runs[-self.last :] if self.last else runs, by_workload=work is None)
