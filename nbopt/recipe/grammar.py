"""The line: words that quotes and brackets hold together, and options read by their declaration."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from nbopt.errors import OptionError, nearest
from nbopt.recipe.names import Namespace
from nbopt.recipe.values import is_flag, read_value, write_value

_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Word(NamedTuple):
    """Hold one word of a line, as written.

    Args:
        text: With its quotes and brackets.
        start: Where it starts in the line.
        open: The quote or bracket that was not closed, or "".
    """

    text: str
    start: int = 0
    open: str = ""

    @property
    def is_option(self) -> bool:
        """Tell whether the word names an option: `--sparsity`, `-o`, not `-0.5`."""
        return self.text[:1] == "-" and self.text[1:2] not in "0123456789." and len(self.text) > 1

    @property
    def name(self) -> str:
        """Return the option's name as fields have it: `--weight-decay=0.1` gives "weight_decay"."""
        return self.text.partition("=")[0].lstrip("-").replace("-", "_")


def words_of(line: str) -> list[Word]:
    """Split a line into words; `|` is a word of its own, and `#` at the start of a word begins a comment.

    Blanks and bars inside quotes and brackets do not split.
    """
    found: list[Word] = []
    at, end = 0, len(line)
    while at < end:
        if line[at].isspace():
            at += 1
        elif line[at] == "|":
            found.append(Word("|", at))
            at += 1
        elif line[at] == "#":
            newline = line.find("\n", at)
            at = end if newline < 0 else newline
        else:
            stop, still_open = _word_end(line, at)
            found.append(Word(line[at:stop], at, still_open))
            at = stop
    return found


def _word_end(line: str, start: int) -> tuple[int, str]:
    """Return where the word ends, and the quote or bracket that is open there."""
    at, quote, closing = start, "", ""
    while at < len(line):
        char = line[at]
        if quote:
            if char == "\\":
                at += 1
            elif char == quote:
                quote = ""
        elif char in "'\"" and (closing or at == start or line[at - 1] in "=,"):
            # Only where a value can begin: the apostrophe of a word is not a quote.
            quote = char
        elif char in _CLOSING:
            closing += _CLOSING[char]
        elif closing:
            closing = closing[:-1] if char == closing[-1] else closing
        elif char.isspace() or char == "|":
            break
        at += 1
    return min(at, len(line)), quote or closing[-1:]


def segments_of(words: Sequence[Word]) -> list[list[Word]]:
    """Split words at the bars."""
    parts: list[list[Word]] = [[]]
    for word in words:
        if word.text == "|":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


@dataclass(frozen=True)
class Option:
    """Hold an option as the grammar, help and completion see it: a field and its type.

    Args:
        owner: The dataclass that declares it.
        spec: The field, with the metadata of `nbopt.options.option`.
        hint: Its type.
    """

    owner: type
    spec: dataclasses.Field[Any]
    hint: Any

    @property
    def name(self) -> str:
        """Return the field's name."""
        return self.spec.name

    @property
    def flag(self) -> str:
        """Return how a line writes it: `--weight-decay`, `-o`."""
        return f"-{self.name}" if len(self.name) == 1 else "--" + self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[Any, ...]:
        """Return the only values allowed, () where there is no such list."""
        return tuple(self.spec.metadata.get("choices") or ())

    @property
    def unit(self) -> str:
        """Return the unit of a number."""
        return str(self.spec.metadata.get("unit") or "")

    @property
    def help(self) -> str:
        """Return its effect, one sentence."""
        return str(self.spec.metadata.get("help") or "")

    @property
    def default(self) -> Any:
        """Return its value where the user says nothing."""
        if self.spec.default_factory is not dataclasses.MISSING:
            return self.spec.default_factory()
        return self.spec.default

    def read(self, text: str, names: Namespace = None, where: str = "") -> Any:
        """Return the value that one word stands for.

        Raises:
            OptionError: It does not have the declared type, or a name has no value.
        """
        where = where or self.flag
        try:
            return read_value(text, self.hint, names, where=where, unit=self.unit, choices=self.choices)
        except OptionError as error:
            if error.do:
                raise
            raise OptionError(error.expected, error.came, _example(self)) from error

    def write(self, value: Any) -> list[str]:
        """Return the option with a value, as words of a line."""
        if is_flag(self.hint) and isinstance(value, bool):
            return [self.flag if value else f"--no-{self.flag[2:]}"]
        return [self.flag, write_value(value, self.hint, unit=self.unit, choices=self.choices)]


def options_of(owner: type) -> dict[str, Option]:
    """Return the options that a dataclass declares, by field name."""
    return dict(_declared(owner))


@cache
def _declared(owner: Hashable) -> dict[str, Option]:
    assert isinstance(owner, type)
    try:
        hints = get_type_hints(owner)
    except NameError:
        # A type that is imported for checkers only: judge each field alone, by its default where that fails.
        hints = {spec.name: _hint_of(owner, spec) for spec in dataclasses.fields(owner)}
    return {spec.name: Option(owner, spec, hints[spec.name]) for spec in dataclasses.fields(owner) if spec.init}


def _hint_of(owner: type, spec: dataclasses.Field[Any]) -> Any:
    home = next(base for base in owner.__mro__ if spec.name in inspect.get_annotations(base))
    annotation = inspect.get_annotations(home)[spec.name]
    try:
        return eval(annotation, vars(sys.modules[home.__module__])) if isinstance(annotation, str) else annotation
    except NameError:
        return Any if spec.default in (None, dataclasses.MISSING) else type(spec.default)


def read_options(
    words: Sequence[Word], options: Mapping[str, Option], names: Namespace, where: str
) -> tuple[dict[str, Any], list[Word]]:
    """Read the words after a technique or verb.

    Args:
        words: The words.
        options: What may be given, by field name.
        names: What identifiers and expressions mean.
        where: The technique or verb, for messages.

    Returns:
        Values by field name, and the words that belong to no option.

    Raises:
        OptionError: An option is unknown, given twice, has no value, or one of the wrong type.
    """
    values: dict[str, Any] = {}
    rest: list[Word] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word.open:
            raise OptionError(f"the {word.open} that closes {word.text[:40]}", "the end of the line")
        if not word.is_option:
            rest.append(word)
            continue
        option, value = _option_named(word, options, where)
        title = f"{where} {option.flag}".strip()
        if option.name in values:
            raise OptionError(f"{title} once", f"it stands there twice: {word.text}")
        text: str | None = word.text.partition("=")[2] if "=" in word.text else None
        if value is None and text is None:
            following = words[at] if at < len(words) else None
            if is_flag(option.hint):
                # `--structured model` must not take the model, so only the two words count as its value.
                value = True
                if following is not None and following.text.lower() in ("true", "false"):
                    value = following.text.lower() == "true"
                    at += 1
            elif following is None or following.is_option:
                came = "the end of the line" if following is None else following.text
                raise OptionError(f"a value after {title}", came, _example(option))
            else:
                text = following.text
                at += 1
                if following.open:
                    raise OptionError(f"the {following.open} that closes {text[:40]}", "the end of the line")
        if value is None:
            if not text:
                raise OptionError(f"a value after {title}", "nothing", _example(option))
            value = option.read(text, names, title)
        elif "=" in word.text:
            raise OptionError(f"{word.text.partition('=')[0]} without a value", word.text, option.flag)
        values[option.name] = value
    return values, rest


def _option_named(word: Word, options: Mapping[str, Option], where: str) -> tuple[Option, bool | None]:
    """Return the option that a word names, and False where it is switched off by `--no-`."""
    if word.name in options:
        return options[word.name], None
    off = options.get(word.name.removeprefix("no_")) if word.name.startswith("no_") else None
    if off is not None and is_flag(off.hint):
        return off, False
    written = word.text.partition("=")[0]
    flags = [option.flag for option in options.values()]
    if not flags:
        raise OptionError(f"{where} without options", written)
    raise OptionError(f"an option of {where}", written, nearest(written, flags))


def _example(option: Option) -> str:
    if option.choices:
        return f"{option.flag} {option.choices[0]}, or another of {', '.join(map(str, option.choices))}"
    default = option.default
    if default in (None, "", ()) or default is dataclasses.MISSING:
        return f"{option.flag} VALUE: {option.help}" if option.help else ""
    return " ".join(option.write(default))
