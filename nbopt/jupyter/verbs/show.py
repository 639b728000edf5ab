"""`%optimize show`: all that is known of one run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.history import RunCard
from nbopt.jupyter.verbs import Verb
from nbopt.options import option

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Show(Verb):
    """Show one run: what was asked, what was measured, and how."""

    word: ClassVar[str] = "show"
    summary: ClassVar[str] = "show all that is known of one run"
    takes: ClassVar[tuple[str, ...]] = ("name",)
    needs: ClassVar[tuple[str, ...]] = ("name",)
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize show quantize/openvino",
        "%optimize show {q8.best(max_drop=0.01)}",
    )

    name: str | Any = option("", "name of the run, first letters of its id, or a variable")

    def run(self, session: Session, request: Request) -> RunCard:
        """Return the run's card."""
        return RunCard(session.run_named(self.name))
