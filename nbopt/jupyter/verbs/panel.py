"""`%optimize panel`: the same with clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nbopt.jupyter.verbs import Verb

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Panel(Verb):
    """Show a panel: choose, run, watch, cancel, take away; each click is a magic that it shows."""

    word: ClassVar[str] = "panel"
    summary: ClassVar[str] = "do the same with clicks: choose, run, watch, cancel, apply, export"
    shares: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ("%optimize panel",)

    def run(self, session: Session, request: Request) -> None:
        """Show it; a second call shows the same panel again."""
        if session.panel is None:
            session.panel = session.new_panel(session)
        session.panel.show()
