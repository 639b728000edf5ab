"""`%optimize doctor`: what this machine has, and what to do about what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nbopt.doctor import Diagnosis, diagnose
from nbopt.jupyter.verbs import Verb

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Doctor(Verb):
    """Look at the processor, the runtimes, the frameworks and the store."""

    word: ClassVar[str] = "doctor"
    summary: ClassVar[str] = "tell what this machine has, what is missing, and which command brings it"
    examples: ClassVar[tuple[str, ...]] = ("%optimize doctor",)

    def run(self, session: Session, request: Request) -> Diagnosis:
        """Return the diagnosis."""
        return diagnose()
