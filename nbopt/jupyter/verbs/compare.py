"""`%optimize compare`: the runs that are kept, or comparisons that variables hold, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.jupyter.verbs import Verb
from nbopt.options import option

if TYPE_CHECKING:
    from nbopt.comparison import Comparison
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Compare(Verb):
    """Put runs into one table: all that are kept of the bound model, or those that are named."""

    word: ClassVar[str] = "compare"
    summary: ClassVar[str] = "show the runs that are kept of the bound model in one table, or the named ones"
    takes: ClassVar[tuple[str, ...]] = ("names...",)
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize compare",
        "%optimize compare q8 pruned",
        "%optimize compare quantize prune+quantize/openvino",
    )

    names: tuple[str | Any, ...] = option((), "variables that hold results, names of runs or of recipes")

    def run(self, session: Session, request: Request) -> Comparison:
        """Return the comparison."""
        return session.comparison(self.names)
