"""Recipe: techniques in order, to and from one line of text.

The magics, completion and the command line read their options with the same grammar, from the same
declarations (`nbopt.options.option`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from nbopt.errors import OptionError
from nbopt.recipe.grammar import Option, Word, options_of, read_options, segments_of, words_of
from nbopt.recipe.names import Namespace
from nbopt.technique import Technique
from nbopt.techniques import technique_named

BASELINE = "baseline"


@dataclass(frozen=True)
class Recipe:
    """Hold techniques in the order in which they are applied.

    Args:
        techniques: The steps; none is the untouched model.
        seed: Seed of everything random in them.

    Examples:
        >>> Recipe.parse("prune --sparsity 50% | quantize --dtype int8").words
        'prune+quantize'
    """

    techniques: tuple[Technique, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        seed: Any = self.seed
        if not isinstance(seed, Integral) or seed < 0:
            raise OptionError("a seed of 0 or more", repr(seed), "seed=0")

    @classmethod
    def of(cls, *parts: Technique | Recipe | str, seed: int | None = None) -> Recipe:
        """Return one recipe of techniques, recipes and lines of text, in this order.

        Args:
            parts: What to join.
            seed: The seed; None takes the first given recipe's, or 0.

        Raises:
            OptionError: A part is none of these, or its text can't be read.
        """
        steps: list[Technique] = []
        for part in parts:
            if isinstance(part, Technique):
                steps.append(part)
            elif isinstance(part, Recipe):
                steps += part.techniques
                seed = part.seed if seed is None else seed
            elif isinstance(part, str):
                steps += cls.parse(part).techniques
            else:
                raise OptionError(
                    "a technique, a recipe or its text",
                    f"{part!r:.60}, a {type(part).__name__}",
                    'nbopt.Quantize(dtype="int8"), or "quantize --dtype int8"',
                )
        return cls(tuple(steps), seed or 0)

    @classmethod
    def parse(cls, text: str, resolve: Namespace = None, *, seed: int = 0) -> Recipe:
        """Read a recipe from one line.

        Args:
            text: `prune --sparsity 0.5 | distill --epochs 3 | quantize --dtype int8`.
            resolve: What identifiers and `{expressions}` mean: variables, or a function that evaluates them.
            seed: The recipe's seed; the line does not hold it.

        Raises:
            OptionError: A technique or option is unknown, or a value is missing or of the wrong type.
        """
        words = words_of(text)
        if not words or [word.text for word in words] == [BASELINE]:
            return cls((), seed)
        return cls(tuple(read_technique(part, resolve) for part in segments_of(words)), seed)

    def text(self) -> str:
        """Return the recipe as one line that `parse` reads back; "baseline" where it has no technique."""
        return " | ".join(map(technique_text, self.techniques)) or BASELINE

    @property
    def words(self) -> str:
        """Return the techniques' words: "prune+quantize"."""
        return "+".join(step.word for step in self.techniques) or BASELINE

    @property
    def label(self) -> str:
        """Return the recipe as a table writes it: "prune 0.5 structured + quantize int8"."""
        return " + ".join(step.label for step in self.techniques) or BASELINE

    def beside(self) -> tuple[Recipe, ...]:
        """Return the recipes that must stand beside it: one step each replaced by what its technique names."""
        steps = self.techniques
        return tuple(
            replace(self, techniques=(*steps[:place], other, *steps[place + 1 :]))
            for place, step in enumerate(steps)
            for other in step.beside()
        )

    def with_seed(self, seed: int) -> Recipe:
        """Return the same recipe with another seed."""
        return replace(self, seed=seed)

    def __str__(self) -> str:
        return self.text()


def technique_text(step: Technique) -> str:
    """Return a technique with the options that differ from their default, as one segment of a line."""
    words = [step.word]
    for option in options_of(type(step)).values():
        value = getattr(step, option.name)
        default = option.default
        if type(value) is not type(default) or value != default:
            words += option.write(value)
    return " ".join(words)


def read_technique(words: Sequence[Word], names: Namespace = None) -> Technique:
    """Read one segment of a line.

    Raises:
        OptionError: The technique or an option is unknown, or a value can't be used.
    """
    if not words:
        raise OptionError("a technique on each side of |", "nothing", "prune --sparsity 0.5 | quantize")
    technique = technique_named(words[0].text)
    values, rest = read_options(words[1:], options_of(technique), names, technique.word)
    refuse_rest(rest, technique.word, options_of(technique).values())
    return technique(**values)


def refuse_rest(rest: Sequence[Word], where: str, options: Iterable[Option]) -> None:
    """Refuse words that belong to no option.

    Raises:
        OptionError: There are such words.
    """
    if rest:
        flags = ", ".join(option.flag for option in options)
        raise OptionError(
            f"options after {where}, each with --", repr(rest[0].text), flags and f"{where} takes {flags}"
        )


__all__ = ["BASELINE", "Recipe", "read_technique", "technique_text"]
