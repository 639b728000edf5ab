"""The line of a magic: a verb, or techniques with `|` between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nbopt.errors import OptionError, nearest
from nbopt.jupyter.options import Request, Running, Shared, groups_of, shared_options
from nbopt.jupyter.verbs import Verb, all_verbs
from nbopt.recipe import Recipe, refuse_rest
from nbopt.recipe.grammar import Option, Word, options_of, read_options, segments_of, words_of
from nbopt.recipe.names import Namespace
from nbopt.recipe.values import read_value, split_list
from nbopt.technique import Technique
from nbopt.techniques import all_techniques

HELP_FLAGS = ("--help", "-h", "-?")


@dataclass(frozen=True)
class Command:
    """Hold a line that was read.

    Args:
        verb: The verb, None where the line holds techniques.
        request: The techniques and the shared options.
    """

    verb: Verb | None
    request: Request = field(default_factory=Request)

    @property
    def takes_body(self) -> bool:
        """Tell whether it has a cell form."""
        return self.verb is None or self.verb.body


def line_options(owner: type[Verb | Technique]) -> dict[str, Option]:
    """Return all options of a line that starts with this verb or technique, its own first."""
    groups = owner.shares if issubclass(owner, Verb) else groups_of(owner)
    own = options_of(owner)
    # A technique's own option comes before a shared one of the same name.
    return {**own, **{name: each for name, each in shared_options(groups).items() if name not in own}}


def read_line(line: str, names: Namespace, defaults: Mapping[str, Any] | None = None) -> Command:
    """Read the line after `%optimize`.

    Args:
        line: The line.
        names: The notebook's variables.
        defaults: What `%config NbOpt` gives running and measuring where the line does not.

    Raises:
        OptionError: A word, an option or a value can't be read; the nearest right word is named.
    """
    words = words_of(line.rstrip().removesuffix(";"))
    verbs, techniques = all_verbs(), all_techniques()
    flags = [word for word in words if word.text in HELP_FLAGS]
    if flags or not words:
        topics = [word.text for word in words if word.text in verbs or word.text in techniques]
        return Command(verbs["help"](topics[-1] if topics else ""))  # type: ignore[call-arg]
    first = words[0].text
    segments = segments_of(words)
    if first in verbs:
        if len(segments) > 1:
            raise OptionError(f"{first} on a line of its own", "a | after it", "%optimize " + first)
        return _verb_line(verbs[first], words[1:], names, defaults or {})
    given: dict[type[Shared], dict[str, Any]] = {}
    steps: list[Technique] = []
    for segment in segments:
        if not segment:
            raise OptionError("a technique on each side of |", "nothing", "prune --sparsity 0.5 | quantize")
        word = segment[0].text
        if word not in techniques:
            known = {**techniques, **verbs} if segment is segments[0] else techniques
            raise OptionError(
                f"a {'verb or ' if known is not techniques else ''}technique",
                repr(word),
                nearest(word, known),
            )
        technique = techniques[word]
        options = line_options(technique)
        values, rest = read_options(segment[1:], options, names, word)
        refuse_rest(rest, word, options_of(technique).values())
        steps.append(technique(**_sorted_out(values, options, technique, given, word)))
    request = Request(given=given, defaults=defaults or {})
    return Command(None, replace(request, recipe=Recipe(tuple(steps), request.group(Running).seed)))


def _verb_line(verb: type[Verb], words: Sequence[Word], names: Namespace, defaults: Mapping[str, Any]) -> Command:
    options = line_options(verb)
    values, rest = read_options(words, options, names, verb.word)
    for place in verb.takes:
        name = place.removesuffix("...")
        if not rest:
            break
        if name in values:
            raise OptionError(f"{verb.word} with one {name}", f"{rest[0].text!r} and {options[name].flag}")
        where = f"{verb.word} {name.upper()}"
        if place.endswith("..."):
            parts = [part for word in rest for part in split_list(word.text)]
            values[name] = tuple(read_value(part, str | Any, names, where=where) for part in parts)
            rest = []
        else:
            values[name] = options[name].read(rest[0].text, names, where)
            rest = rest[1:]
    if rest:
        raise OptionError(verb.usage, repr(rest[0].text), f"%optimize help {verb.word}")
    given: dict[type[Shared], dict[str, Any]] = {}
    own = _sorted_out(values, options, verb, given, verb.word)
    missing = [name for name in verb.needs if name not in own]
    if missing:
        raise OptionError(verb.usage, f"no {' and no '.join(missing)}", verb.examples[0] if verb.examples else "")
    return Command(verb(**own), Request(given=given, defaults=defaults))


def _sorted_out(
    values: Mapping[str, Any],
    options: Mapping[str, Option],
    owner: type,
    given: dict[type[Shared], dict[str, Any]],
    where: str,
) -> dict[str, Any]:
    """Put the shared options among `values` into `given`, and return the owner's own."""
    own: dict[str, Any] = {}
    for name, value in values.items():
        group = options[name].owner
        if group is owner:
            own[name] = value
            continue
        before = given.setdefault(group, {})
        if name in before:
            raise OptionError(f"{options[name].flag} once", f"it stands there again after {where}")
        before[name] = value
    return own
