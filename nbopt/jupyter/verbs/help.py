"""`%optimize help`: generated from the declarations that the parser reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.demo import titles
from nbopt.errors import OptionError, nearest
from nbopt.jupyter.options import GROUPS, groups_of
from nbopt.jupyter.verbs import Verb, all_verbs
from nbopt.options import option
from nbopt.recipe.grammar import Option, options_of
from nbopt.recipe.values import is_flag
from nbopt.sheet import Sheet, bundle
from nbopt.technique import Technique
from nbopt.techniques import all_techniques

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session

START = "%optimize use model --train train_dl --valid valid_dl --metric accuracy"
OPENED = "in JupyterLab a tile of the launcher, and nbopt: Open a Tutorial in the palette, open a copy of one"
UNITS = {"": "", "s": " (10m, 90s, 2h)", "ms": " (2ms)", "bytes": " (5MB)", "x": " (2x)"}


@dataclass(frozen=True)
class HelpPage:
    """Hold a page of help.

    Args:
        sheets: Its tables.
    """

    sheets: tuple[Sheet, ...]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle(self.sheets)

    def __repr__(self) -> str:
        return str(bundle(self.sheets)["text/plain"])


@dataclass(frozen=True)
class Help(Verb):
    """Tell what a verb or technique does and which options it takes."""

    word: ClassVar[str] = "help"
    summary: ClassVar[str] = "list verbs and techniques, or the options of one"
    takes: ClassVar[tuple[str, ...]] = ("topic",)
    examples: ClassVar[tuple[str, ...]] = ("%optimize help", "%optimize help quantize")

    topic: str = option("", "a verb or a technique")

    def run(self, session: Session, request: Request) -> HelpPage:
        """Return the page."""
        if not self.topic:
            return overview()
        known: dict[str, type[Verb | Technique]] = {**all_verbs(), **all_techniques()}
        if self.topic not in known:
            raise OptionError("a verb or technique", repr(self.topic), nearest(self.topic, known))
        return page_of(known[self.topic])


def overview() -> HelpPage:
    """Return the page that names everything."""
    verbs = [(verb.usage.removeprefix("%optimize "), verb.summary) for verb in all_verbs().values()]
    techniques = [(word, kind.summary) for word, kind in all_techniques().items()]
    return HelpPage(
        (
            Sheet("%optimize VERB, or techniques in order with | between them", rows=(("start with", START),)),
            Sheet("verbs", rows=tuple(verbs)),
            Sheet("techniques", rows=tuple(techniques), note="%optimize help quantize: the options of one"),
            Sheet("tutorials", rows=tuple((title, str(path)) for path, title in titles().items()), note=OPENED),
        )
    )


def page_of(kind: type[Verb | Technique]) -> HelpPage:
    """Return the page of one verb or technique."""
    own = list(options_of(kind).values())
    if issubclass(kind, Verb):
        usage, shares, examples = kind.usage, kind.shares, kind.examples
    else:
        usage = f"%optimize {kind.word} [OPTIONS] [| NEXT TECHNIQUE]"
        shares = groups_of(kind)
        examples = (f"%optimize {kind.word}", *(_example(kind.word, each) for each in own[:2]))
    taken = [place.removesuffix("...") for place in getattr(kind, "takes", ())]
    titles = {"binding": "what is optimized", "running": "running and measuring", "output": "result"}
    titles["scoring"] = "with a cell body, which gives the score of a `trial`"
    sheets = [Sheet(f"{usage}: {kind.summary}", rows=_rows(own, taken))]
    sheets += [Sheet(titles[name], rows=_rows(options_of(GROUPS[name]).values(), taken)) for name in shares]
    sheets.append(Sheet("examples", rows=tuple((line,) for line in examples)))
    return HelpPage(tuple(sheets))


def _rows(options: Iterable[Option], taken: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (each.name.upper() if each.name in taken else f"{each.flag}{_value_text(each)}", _describe(each))
        for each in options
    )


def _value_text(each: Option) -> str:
    if is_flag(each.hint):
        return ""
    if each.choices:
        return f" {'|'.join(map(str, each.choices))}"
    if each.name == "o":
        return " NAME"
    return f" {each.unit.upper() if each.unit.isalpha() and each.unit not in UNITS else each.name.upper()}"


def _describe(each: Option) -> str:
    meta = each.spec.metadata
    low, high = meta.get("low"), meta.get("high")
    ends = "above {} and below {}" if meta.get("open") else "{} to {}"
    span = ends.format(low, high) if low is not None and high is not None else ""
    if not span and low is not None:
        span = f"{'above' if meta.get('open') else 'at least'} {low}"
    default = (
        "" if each.default in (None, "", (), False) else f"default {' '.join(each.write(each.default)[1:]) or 'on'}"
    )
    notes = "; ".join(note for note in (span, default) if note)
    return f"{each.help}{UNITS.get(each.unit, '')}{f' [{notes}]' if notes else ''}"


def _example(word: str, each: Option) -> str:
    value = each.choices[-1] if each.choices else each.default
    return f"%optimize {word} {' '.join(each.write(True if isinstance(value, bool) else value))}"
