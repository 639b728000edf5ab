"""Completion of `%optimize` lines, by what each place can hold."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from IPython.core.completer import SimpleCompletion

from nbopt.errors import NbOptError
from nbopt.jupyter.arguments import line_options
from nbopt.jupyter.namespace import is_array, is_data, is_model, names_of
from nbopt.jupyter.options import ALL
from nbopt.jupyter.verbs import Verb, all_verbs
from nbopt.recipe.grammar import Option, Word, segments_of, words_of
from nbopt.recipe.values import is_flag, kinds_of
from nbopt.runtimes import all_runtimes
from nbopt.techniques import all_techniques

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult

    from nbopt.runs import Run
    from nbopt.technique import Technique

_LINE = re.compile(r"\s*(?:[^%=]+=\s*)?(%%?)optimize\s(.*)", re.DOTALL)
_NONE: list[tuple[str, str]] = []

Found = Sequence[tuple[str, str]]
"""Words that fit, each with its kind as front ends show it."""


@dataclass(frozen=True)
class Known:
    """Hold what a notebook has that can stand in a line.

    Args:
        names: Its variables.
        runs: Returns the kept runs; asked only where one can stand.
    """

    names: Mapping[str, Any]
    runs: Callable[[], Sequence[Run]]


def complete(context: CompletionContext, known: Known) -> SimpleMatcherResult:
    """Return what fits at the cursor of an `%optimize` line; nothing in any other line."""
    match = _LINE.match(context.text_until_cursor)
    if not match or (match[1] == "%%" and context.cursor_line != 0):
        return {"completions": []}
    fragment, found = at_cursor(match[2], known)
    fitting = [SimpleCompletion(text=text, type=kind) for text, kind in found if text.startswith(fragment)]
    return {"completions": fitting, "matched_fragment": fragment, "suppress": bool(fitting), "ordered": True}


def at_cursor(line: str, known: Known) -> tuple[str, Found]:
    """Return the word being typed at the end of a line, and the words that can stand there."""
    words = words_of(line)
    fragment = ""
    if words and words[-1].open:
        return "", _NONE  # inside quotes or an expression the usual completion knows better
    if words and words[-1].text != "|" and not line[-1].isspace():
        fragment = words.pop().text
    segments = segments_of(words)
    current = segments[-1]
    if not current:
        verbs = all_verbs() if len(segments) == 1 else ()
        return fragment, [(word, "keyword") for word in (*verbs, *all_techniques())]
    word = current[0].text
    owner: type[Verb | Technique] | None = all_verbs().get(word) or all_techniques().get(word)
    if owner is None:
        return fragment, _NONE
    options = line_options(owner)
    asked = _awaiting(current, options)
    if asked is not None:
        return _values(asked, fragment, known)
    name, equals, value = fragment.partition("=")
    if equals and name.startswith("-"):
        option = options.get(Word(name).name)
        return _values(option, value, known) if option else ("", _NONE)
    if issubclass(owner, Verb) and not fragment.startswith("-") and owner.takes:
        names = _positional(owner, current, options, known)
        if names:
            return fragment, names
    return fragment, _flags(options, segments)


def _awaiting(words: Sequence[Word], options: Mapping[str, Option]) -> Option | None:
    """Return the option whose value comes next, or None."""
    last = words[-1]
    if not last.is_option or "=" in last.text:
        return None
    option = options.get(last.name)
    return option if option is not None and not is_flag(option.hint) else None


def _flags(options: Mapping[str, Option], segments: Sequence[Sequence[Word]]) -> Found:
    """Return the options that the line does not have yet."""
    used = {word.name for words in segments[:-1] for word in words if word.is_option}
    shared = {name for name in used if name in options}
    used = {word.name for word in segments[-1] if word.is_option} | shared
    found: dict[str, None] = {}
    for name, option in options.items():
        if name in used or option.name in used or f"no_{name}" in used:
            continue
        off = is_flag(option.hint) and option.default is True
        found[f"--no-{option.flag[2:]}" if off else option.flag] = None
    return [(flag, "param") for flag in found]


def _values(option: Option, fragment: str, known: Known) -> tuple[str, Found]:
    """Return the value being typed (after the last comma), and what can stand there."""
    if option.name == "o":
        return fragment, _NONE
    before, comma, last = fragment.rpartition(",")
    fixed = [str(choice) for choice in option.choices]
    for kind in kinds_of(option.hint):
        fixed += [str(value) for value in get_args(kind)] if get_origin(kind) is Literal else []
    if option.name == "runtimes":
        chosen = before.split(",") if comma else []
        names = [*all_runtimes(), *([] if comma else [ALL])]
        return last, [(name, "keyword") for name in names if name not in chosen]
    if fixed or not _takes_variables(option):
        return last, [*((word, "keyword") for word in fixed), *_functions(option, known)]
    # `xv,yv` is one value of two arrays, which are variables of any kind.
    test = _TESTS.get(option.name, _is_any) if not comma else is_array
    return last, [(name, "instance") for name in names_of(known.names, test)]


def _takes_variables(option: Option) -> bool:
    plain = (bool, int, float, str, types.NoneType)
    return any(kind not in plain and get_origin(kind) not in (Literal, tuple) for kind in kinds_of(option.hint))


def _functions(option: Option, known: Known) -> Iterable[tuple[str, str]]:
    """Return the user's objects where one may stand beside fixed words: a metric of one's own, a student."""
    if not _takes_variables(option):
        return []
    if option.name in _TESTS:
        return [(name, "instance") for name in names_of(known.names, _TESTS[option.name])]
    names = names_of(known.names, lambda value: isinstance(value, types.FunctionType))
    return [(name, "function") for name in names if name not in ("exit", "quit", "open", "get_ipython")]


def _is_any(value: Any) -> bool:
    return not isinstance(value, (types.ModuleType, type))


_TESTS: dict[str, Callable[[Any], bool]] = {
    "model": is_model,
    "teacher": is_model,
    "student": is_model,
    "extra": is_data,
    "train": is_data,
    "valid": is_data,
    "test": is_data,
}


def _positional(verb: type[Verb], words: Sequence[Word], options: Mapping[str, Option], known: Known) -> Found:
    """Return what can stand at the next place of a verb that takes words without `--`."""
    given, skip = 0, False
    for word in words[1:]:
        if skip:
            skip = False
        elif word.is_option:
            option = options.get(word.name)
            skip = option is not None and not is_flag(option.hint) and "=" not in word.text
        else:
            given += 1
    places = verb.takes
    if given >= len(places) and not places[-1].endswith("..."):
        return _NONE
    place = places[min(given, len(places) - 1)].removesuffix("...")
    fixed = options[place].choices if place in options else ()
    if fixed:
        return [(str(choice), "keyword") for choice in fixed]
    if place == "model":
        return [(name, "instance") for name in names_of(known.names, is_model)]
    if place == "topic":
        return [(word, "keyword") for word in (*all_verbs(), *all_techniques())]
    if place in ("name", "names"):
        from nbopt.comparison import Comparison
        from nbopt.history import latest, numbered
        from nbopt.runs import Run

        kinds = (Run, Comparison) if place == "names" else (Run,)
        held = names_of(known.names, lambda value: isinstance(value, kinds))
        try:
            kept = numbered(latest(known.runs()))[::-1]
        except NbOptError:
            kept = []  # a damaged store is told by the verb itself, not while typing
        return [*((name, "instance") for name in held), *((run.name, "run") for run in kept)]
    return _NONE
