"""What a form shows of each option, from its declaration; and the line that a filled form stands for."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from nbopt.errors import OptionError
from nbopt.options import check_value
from nbopt.recipe.grammar import Option, options_of, words_of
from nbopt.recipe.names import Namespace
from nbopt.recipe.values import is_flag, kinds_of, quoted

Kind = Literal["flag", "choice", "text"]


@dataclass(frozen=True)
class Field:
    """Hold an option as a form shows it.

    Args:
        option: The option.
        kind: A box to tick, a list to choose from, or text that is read as in a line.
        start: What the form shows at first: what a line takes that does not say otherwise.
        choices: What can be chosen, as text.
        hint: The default and the range, a few words.
    """

    option: Option
    kind: Kind
    start: str
    choices: tuple[str, ...] = ()
    hint: str = ""

    @property
    def name(self) -> str:
        """Return the option's name."""
        return self.option.name

    def words(self, text: str) -> list[str]:
        """Return the words that say this value in a line; none where it is the default.

        Nothing in a field is what the option is declared with, whatever the form showed at first.
        """
        text = text.strip()
        if not text and self.start:
            declared = self.option.default
            text = "None" if declared is None else self.option.write(declared)[-1]
        if text == self.start:
            return []
        if self.kind == "flag":
            flag = self.option.flag
            return [flag if text == "True" else f"--no-{flag[2:]}"]
        return [self.option.flag, text if _is_word(text) else quoted(text)]

    def fault(self, text: str, names: Namespace) -> str:
        """Return what is wrong with a text, "" where it can be used."""
        if self.kind != "text" or text.strip() in ("", self.start):
            return ""
        try:
            value = self.option.read(text.strip(), names)
            check_value(self.option.flag, self.option.spec, value)
        except OptionError as error:
            return str(error)
        return ""


def field_of(option: Option, usual: Mapping[str, Any] | None = None) -> Field:
    """Return how a form shows an option.

    Args:
        option: The option.
        usual: What lines take where they do not say otherwise, by option; else what is declared.
    """
    default = (usual or {}).get(option.name, option.default)
    if is_flag(option.hint):
        return Field(option, "flag", str(bool(default)))
    fixed = tuple(map(str, option.choices))
    kinds = kinds_of(option.hint)
    if not fixed and all(get_origin(kind) is Literal or kind is types.NoneType for kind in kinds):
        fixed = tuple(str(value) for kind in kinds for value in get_args(kind))
    start = "" if default in (None, "", ()) else option.write(default)[-1]
    if fixed:
        return Field(option, "choice", start, fixed if start in fixed else (start, *fixed))
    return Field(option, "text", start, hint=span_text(option))


def span_text(option: Option) -> str:
    """Return the range of an option in words, "" where there is none: "0 to 1", "above 0", "at least 1"."""
    meta = option.spec.metadata
    low, high, apart = meta.get("low"), meta.get("high"), meta.get("open")
    words = ", ".join(meta.get("words") or ())
    if low is not None and high is not None:
        span = f"above {low:g} and below {high:g}" if apart else f"{low:g} to {high:g}"
    elif low is not None:
        span = f"above {low:g}" if apart else f"at least {low:g}"
    else:
        span = f"up to {high:g}" if high is not None else ""
    unit = option.unit if option.unit in ("s", "ms", "rows") else {"bytes": "as 5MB"}.get(option.unit, "")
    return ", ".join(part for part in (f"{span} {unit}".strip(), f"or {words}" if words else "") if part)


def fields_of(owner: type, leave_out: Iterable[str] = (), usual: Mapping[str, Any] | None = None) -> list[Field]:
    """Return the fields of a technique's form, or of a group of shared options, in order."""
    without = set(leave_out)
    return [field_of(option, usual) for name, option in options_of(owner).items() if name not in without]


@dataclass(frozen=True)
class Filled:
    """Hold a filled form.

    Args:
        word: The technique, "" for a group of shared options.
        fields: Its fields.
        values: The text of each, by name.
    """

    word: str
    fields: Sequence[Field]
    values: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """Return what the form says as words of a line."""
        said = [word for field in self.fields for word in field.words(self.values.get(field.name, field.start))]
        return [self.word, *said] if self.word else said


def line_of(steps: Sequence[Filled], shared: Sequence[Filled], bound: str = "") -> str:
    """Return the magic that a panel's forms stand for.

    Args:
        steps: The techniques in order; none measures the baselines, which needs the model.
        shared: The groups of shared options.
        bound: What follows `use`, where nothing but that is asked: "net --train train".
    """
    rest = [word for form in shared for word in form.words]
    if not steps:
        return " ".join(["%optimize use", *([bound] if bound else []), *rest])
    first, *others = steps
    parts = [" ".join([*first.words, *rest]), *(" ".join(form.words) for form in others)]
    return f"%optimize {' | '.join(parts)}"


def use_line(chosen: Mapping[str, str]) -> str:
    """Return what follows `use`: the model, and the data that was chosen.

    Args:
        chosen: Variables by option: model, train, valid, test, metric, loss, name; "" for none.
    """
    words = [chosen["model"]] if chosen.get("model") else []
    for name, value in chosen.items():
        if name != "model" and value:
            words += [f"--{name}", value]
    return " ".join(words)


def _is_word(text: str) -> bool:
    """Tell whether a text is one value in a line as it stands: `0.5`, `1%`, `xv,yv`, `{x[:10]}`."""
    words = words_of(text)
    return len(words) == 1 and words[0].text == text and not words[0].open and not words[0].is_option
