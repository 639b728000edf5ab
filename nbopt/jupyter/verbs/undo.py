"""`%optimize undo`: take back the last `apply`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nbopt.errors import NbOptError
from nbopt.jupyter.session import MISSING
from nbopt.jupyter.verbs import Verb
from nbopt.sheet import Sheet

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Undo(Verb):
    """Give a variable back what it held before the last `apply`; once more, the one before that."""

    word: ClassVar[str] = "undo"
    summary: ClassVar[str] = "take back the last apply: the variable holds again what it held"
    shares: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ("%optimize undo",)

    def run(self, session: Session, request: Request) -> Sheet:
        """Give the variable its value back."""
        if not session.undone:
            raise NbOptError(
                "something that was applied", "nothing in this kernel", "%optimize apply RUN -o fast_model"
            )
        last = session.undone.pop()
        if last.before is MISSING:
            session.names.pop(last.name, None)
            now = f"{last.name} is not defined, as before"
        else:
            session.names[last.name] = last.before
            now = f"{last.name} is a {type(last.before).__name__} again"
        return Sheet(rows=(("took back", f"{last.run} from {last.name}"), ("now", now)))
