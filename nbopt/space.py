"""What a search may change: dimensions, each with the value that changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nbopt.errors import OptionError


@dataclass(frozen=True)
class Dimension:
    """Describe one thing that a search may change in a candidate.

    Args:
        name: Its name in the study, such as "learning_rate".
        apply: Returns a draft with a value in it; `draft` is a `nbopt.draft.Draft`, and is not changed.
        default: The value of the candidate as it stands ("off" for what can be left out): always tried first.
        low: Smallest value of a number.
        high: Largest value of a number.
        log: The number is drawn evenly over its logarithm.
        step: The number is a multiple of this above `low`; 1 makes whole numbers; None takes any.
        choices: The only values there are; then there is no `low` and no `high`.
        when: Name of another dimension and the values of it with which this one means something; None for always.
        reshapes: Its values change the shapes of weights, so that it can't stand beside what holds some of them.

    Raises:
        OptionError: The range is empty, or the default lies outside it.
    """

    name: str
    apply: Callable[[Any, Any], Any]
    default: Any
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()
    when: tuple[str, tuple[Any, ...]] | None = None
    reshapes: bool = False

    def __post_init__(self) -> None:
        if self.choices:
            if self.default not in self.choices:
                raise OptionError(f"a default of {self.name} among {self.choices}", repr(self.default))
            return
        if self.low is None or self.high is None or not self.low < self.high or (self.log and self.low <= 0):
            raise OptionError(f"{self.name} between two numbers, the lower one first", f"{self.low} and {self.high}")
        if not self.low <= self.default <= self.high:
            raise OptionError(f"a default of {self.name} between {self.low:g} and {self.high:g}", f"{self.default}")

    @property
    def whole(self) -> bool:
        """Return whether its values are whole numbers."""
        return not self.choices and self.step is not None and float(self.step).is_integer()

    @property
    def text(self) -> str:
        """Return its name and range for people: `learning_rate 0.0001 to 0.01 (log)`."""
        if self.choices:
            return f"{self.name} {', '.join(map(str, self.choices))}"
        return f"{self.name} {self.low:.3g} to {self.high:.3g}{' (log)' if self.log else ''}"

    def extends(self, other: Dimension) -> bool:
        """Tell whether it has all choices of another one with the same default, and more."""
        return self.default == other.default and set(self.choices) > set(other.choices) > set()

    def size(self) -> float:
        """Return how many values it has, infinity for a continuous one."""
        if self.choices:
            return len(self.choices)
        if self.step is None or self.low is None or self.high is None:
            return math.inf
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1


def most_starts(trials: int) -> int:
    """Return how many of a search's trials techniques may want tried first: a third, the rest is the sampler's."""
    return trials // 3


@dataclass(frozen=True)
class Search:
    """Say how a candidate's dimensions are searched: one training for each trial, by the plan of that trial.

    Args:
        trials: Trainings at most, the untouched values first.
        max_seconds: Start no trial after this much time; None for no limit.
        sampler: Word of a sampler; "auto" chooses by the dimensions and the number of trials.
        pruner: Word of a pruner of unpromising trials; "auto" chooses, "none" lets each one end.
        finalists: The best few that are trained again with fresh seeds before one is chosen.
        jobs: Trials at a time, in processes of their own; 1 searches in this kernel.
        repeats: Fresh seeds of each finalist, and of the untouched values beside them.
        vs: "random" runs a random search with as many trials beside it; "" does not.
        warm: "auto" starts from the best of earlier searches of the same workload and space, "none" does not.
        first: Values to try right after the untouched ones, by the dimensions' names; what is left out is untouched.
    """

    trials: int = 20
    max_seconds: float | None = None
    sampler: str = "auto"
    pruner: str = "auto"
    finalists: int = 3
    jobs: int = 1
    repeats: int = 2
    vs: str = ""
    warm: str = "none"
    first: tuple[Mapping[str, Any], ...] = ()
