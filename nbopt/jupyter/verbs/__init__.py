"""One file = one verb of the magic. A new verb is one new file here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.discovery import OneAFile

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Verb:
    """Be the base of the verbs: subclasses are frozen dataclasses whose fields are their options.

    Class attributes:
        word: Word of the magic.
        summary: What it does, one sentence.
        takes: Fields that come without `--`, in order; `names...` takes all words that are left.
        needs: Fields that must be given.
        shares: Groups of options that it has beside its own: "binding", "running", "output".
        usage: How the line is written; made from `takes` and `needs` where a verb does not say it.
        body: It has a cell form, whose body's value is the model.
        binds: It puts something of its own into the variable of `-o`, not its result.
        examples: Lines that can be pasted.
    """

    word: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    shares: ClassVar[tuple[str, ...]] = ("output",)
    body: ClassVar[bool] = False
    binds: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = ()

    usage: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        places = " ".join(place.removesuffix("...").upper() + "..." * place.endswith("...") for place in cls.takes)
        cls.usage = f"%optimize {cls.word} {places}".rstrip()

    def run(self, session: Session, request: Request) -> Any:
        """Do it, and return what the cell's result is."""
        raise NotImplementedError


@cache
def all_verbs() -> Mapping[str, type[Verb]]:
    """Return every verb found in this package, by its word: `compare.py` holds `Compare`."""
    return OneAFile(__name__, __path__)
