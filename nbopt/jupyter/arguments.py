"""The line of a magic: a verb, or techniques with `|`; and the options that they share."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from nbopt.errors import OptionError, nearest
from nbopt.jupyter.verbs import Verb, all_verbs
from nbopt.recipe import Recipe, refuse_rest
from nbopt.recipe.grammar import Option, Word, options_of, read_options, segments_of, words_of
from nbopt.recipe.names import Namespace
from nbopt.runtimes import runtime_named
from nbopt.technique import Technique, check_value, option
from nbopt.techniques import all_techniques

MetricName = Literal[
    "accuracy", "balanced_accuracy", "auc", "average_precision", "f1", "log_loss", "rmse", "mae", "r2"
]
ALL = "all"
HELP_FLAGS = ("--help", "-h", "-?")


@dataclass(frozen=True)
class Shared:
    """Be the base of the groups of options that verbs and techniques share."""

    def __post_init__(self) -> None:
        for each in options_of(type(self)).values():
            check_value(each.flag, each.spec, getattr(self, each.name))


@dataclass(frozen=True)
class Binding(Shared):
    """Say what is optimized; with a technique, what of it shall be bound anew."""

    model: Any = option(None, "The model: a torch.nn.Module or a keras.Model.")  # noqa: RUF009
    train: Any = option(None, "Data to train and calibrate on: a loader, a dataset, (x, y).")  # noqa: RUF009
    valid: Any = option(None, "Data to select on.")  # noqa: RUF009
    test: Any = option(None, "Data to report on; valid where there is none.")  # noqa: RUF009
    metric: MetricName | Any = option(None, "What quality is, or a function f(y_true, y_score).")  # noqa: RUF009
    loss: Any = option(None, "The framework's loss, where it can't be inferred.")  # noqa: RUF009
    name: str | None = option(None, "Name of the model in tables.")


@dataclass(frozen=True)
class Running(Shared):
    """Say how runs are made and measured, and which limits fail the cell."""

    runtimes: tuple[str, ...] = option((), "Runtimes by commas, or all; the usual ones where not given.")
    measure: str = option("quick", "How long to time: quick or full.", choices=("quick", "full"))
    threads: int | None = option(None, "Threads of one inference; all cores where not given.", low=1)
    seed: int = option(0, "Seed of everything random.", low=0)
    max_drop: float | None = option(None, "Quality that may be lost: 1% or 1pt.", low=0)
    min_speedup: float | None = option(None, "Speedup that must be reached: 2x.", low=0, unit="x")
    max_size: int | None = option(None, "Largest file: 5MB.", low=0, unit="bytes")
    max_latency: float | None = option(None, "Longest latency: 2ms.", low=0, unit="ms")
    max_memory: int | None = option(None, "Highest peak memory: 200MB.", low=0, unit="bytes")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.runtimes:
            if name != ALL:
                runtime_named(name)

    def arguments(self) -> dict[str, Any]:
        """Return the options as `nbopt.optimize` takes them."""
        values = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        values["runtimes"] = ALL if ALL in self.runtimes else self.runtimes or None
        return values


@dataclass(frozen=True)
class Output(Shared):
    """Say where the result goes."""

    o: str | None = option(None, "Variable that the result is bound to.")

    def __post_init__(self) -> None:
        if self.o is not None and (not self.o.isidentifier() or keyword.iskeyword(self.o)):
            raise OptionError("-o with a variable's name", repr(self.o), "-o q8")


GROUPS: dict[str, type[Shared]] = {"binding": Binding, "running": Running, "output": Output}
"""The groups by the word that a verb's `shares` names them with."""

_ALIASES = {"runtime": "runtimes"}
_Group = TypeVar("_Group", bound=Shared)


@dataclass(frozen=True)
class Command:
    """Hold a line that was read.

    Args:
        verb: The verb, None where the line holds techniques.
        recipe: The techniques.
        given: Values of the shared options that the line gives, by group and name.
    """

    verb: Verb | None
    recipe: Recipe = field(default_factory=Recipe)
    given: Mapping[type[Shared], Mapping[str, Any]] = field(default_factory=dict)

    def group(self, kind: type[_Group]) -> _Group:
        """Return a group of shared options, defaults filled in."""
        return kind(**self.given.get(kind, {}))

    @property
    def binding(self) -> dict[str, Any]:
        """Return what of the workload the line names, and nothing else."""
        return dict(self.given.get(Binding, {}))

    @property
    def takes_body(self) -> bool:
        """Tell whether it has a cell form."""
        return self.verb is None or self.verb.body


def shared_options(groups: Iterable[str]) -> dict[str, Option]:
    """Return the options of the groups, by each name that a line may use for them."""
    found = {name: each for group in groups for name, each in options_of(GROUPS[group]).items()}
    return found | {alias: found[name] for alias, name in _ALIASES.items() if name in found}


def line_options(owner: type[Verb | Technique]) -> dict[str, Option]:
    """Return all options of a line that starts with this verb or technique, its own first."""
    groups = owner.shares if issubclass(owner, Verb) else tuple(GROUPS)
    own = options_of(owner)
    # A technique's own option comes before a shared one of the same name.
    return {**own, **{name: each for name, each in shared_options(groups).items() if name not in own}}


def read_line(line: str, names: Namespace) -> Command:
    """Read the line after `%optimize`.

    Args:
        line: The line.
        names: The notebook's variables.

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
        return _verb_line(verbs[first], words[1:], names)
    given: dict[type[Shared], dict[str, Any]] = {}
    steps: list[Technique] = []
    for segment in segments:
        if not segment:
            raise OptionError("a technique on each side of |", "nothing", "prune --sparsity 0.5 | quantize")
        word = segment[0].text
        if word not in techniques:
            known = {**techniques, **verbs} if segment is segments[0] else techniques
            raise OptionError(f"a {'verb or ' if known is not techniques else ''}technique", repr(word), nearest(word, known))
        technique = techniques[word]
        options = line_options(technique)
        values, rest = read_options(segment[1:], options, names, word)
        refuse_rest(rest, word, options_of(technique).values())
        steps.append(technique(**_sorted_out(values, options, technique, given, word)))
    seed = given.get(Running, {}).get("seed", 0)
    return Command(None, Recipe(tuple(steps), seed), given)


def _verb_line(verb: type[Verb], words: Sequence[Word], names: Namespace) -> Command:
    options = line_options(verb)
    values, rest = read_options(words, options, names, verb.word)
    for place in verb.takes:
        name = place.removesuffix("...")
        if not rest:
            break
        if name in values:
            raise OptionError(f"{verb.word} with one {name}", f"{rest[0].text!r} and {options[name].flag}")
        taken, rest = (rest, []) if place.endswith("...") else (rest[:1], rest[1:])
        read = [options[name].read(word.text, names, f"{verb.word} {name.upper()}") for word in taken]
        values[name] = tuple(read) if place.endswith("...") else read[0]
    if rest:
        raise OptionError(verb.usage, repr(rest[0].text), f"%optimize help {verb.word}")
    given: dict[type[Shared], dict[str, Any]] = {}
    own = _sorted_out(values, options, verb, given, verb.word)
    missing = [name for name in verb.needs if name not in own]
    if missing:
        raise OptionError(verb.usage, f"no {' and no '.join(missing)}", verb.examples[0] if verb.examples else "")
    return Command(verb(**own), given=given)


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
