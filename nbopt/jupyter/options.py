"""The options that verbs and techniques share: what is optimized, how runs are made, where results go."""

from __future__ import annotations

import dataclasses
import keyword
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from nbopt.errors import OptionError
from nbopt.options import check_value, option
from nbopt.recipe import Recipe
from nbopt.recipe.grammar import Option, options_of
from nbopt.runtimes import runtime_named
from nbopt.technique import Technique

MetricName = Literal["accuracy", "balanced_accuracy", "auc", "average_precision", "f1", "log_loss", "rmse", "mae", "r2"]
ALL = "all"


@dataclass(frozen=True)
class Shared:
    """Be the base of the groups of options that verbs and techniques share."""

    def __post_init__(self) -> None:
        for each in options_of(type(self)).values():
            check_value(each.flag, each.spec, getattr(self, each.name))


@dataclass(frozen=True)
class Binding(Shared):
    """Say what is optimized; with a technique, what of it shall be bound anew."""

    model: Any = option(None, "a torch.nn.Module or a keras.Model")
    train: Any = option(None, "data to train and calibrate on: a loader, a tf.data.Dataset, x,y")
    valid: Any = option(None, "data to select on")
    test: Any = option(None, "data to report on; valid where there is none")
    metric: MetricName | Any = option(None, "what quality is: a name, or a function f(y_true, y_score)")
    loss: Any = option(None, "the framework's loss, where the inferred one is not it")
    name: str | None = option(None, "name of the model in tables")


@dataclass(frozen=True)
class Running(Shared):
    """Say how runs are made and measured, and which limits fail the cell."""

    runtimes: tuple[str, ...] = option((), "runtimes by commas, or all; else the usual ones")
    measure: str = option("quick", "how long to time", choices=("quick", "full"))
    threads: int | None = option(None, "threads of one inference; else all cores", low=1)
    seed: int = option(0, "seed of everything random", low=0)
    seeds: int = option(1, "repeats with seeds one after the other; rows are means over them", low=1, high=100)
    max_drop: float | None = option(None, "quality that may be lost, else the cell fails (1%, 1pt)", low=0)
    min_speedup: float | None = option(None, "speedup that must be reached, else the cell fails", low=0, unit="x")
    max_size: int | None = option(None, "largest file, else the cell fails", low=0, unit="bytes")
    max_latency: float | None = option(None, "longest latency, else the cell fails", low=0, unit="ms")
    max_memory: int | None = option(None, "highest peak memory, else the cell fails", low=0, unit="bytes")

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

    o: str | None = option(None, "variable that the result is bound to")

    def __post_init__(self) -> None:
        if self.o is not None and (not self.o.isidentifier() or keyword.iskeyword(self.o)):
            raise OptionError("-o with a variable's name", repr(self.o), "-o q8")


@dataclass(frozen=True)
class Scoring(Shared):
    """Say how a cell's body is searched that gives a score for each trial; only with such a body."""

    maximize: bool = option(False, "larger scores are better: so it is where nothing is said")
    minimize: bool = option(False, "smaller scores are better")
    directions: str | None = option(None, "one for each of several scores: maximize,minimize")
    start: Any = option(
        None, "parameters of the first trial, a dict: the untuned default, which others are compared with"
    )
    study: str | None = option(None, "name of a study to make or to resume; else a new one each time")
    storage: Any = option(None, "a journal's path, a URL, or an Optuna storage; else a journal beside the runs")
    trial_timeout: float | None = option(
        None, "end a trial after this time, and fail it", low=0, open_ends=True, unit="s"
    )
    max_cost: float | None = option(None, "money that may be spent, by --price", low=0, open_ends=True)
    price: float | None = option(None, "what an hour of this machine costs", low=0, open_ends=True)
    min_gain: float | None = option(
        None, "end when less is to be gained; else 0.3% of what was gained; 0: never", low=0
    )

    def direction(self) -> str | None:
        """Return the directions in one text, None where the line says none."""
        said = [word for word in ("maximize", "minimize") if getattr(self, word)] + [self.directions or ""]
        words = [word for word in said if word]
        if len(words) > 1:
            flags = " and ".join(f"--{word}" if "," not in word else f"--directions {word}" for word in words)
            raise OptionError("one direction for the score", flags, "--directions maximize,minimize for two scores")
        return words[0] if words else None


GROUPS: dict[str, type[Shared]] = {"binding": Binding, "running": Running, "output": Output, "scoring": Scoring}
"""The groups by the word that a verb's `shares` names them with."""


def groups_of(technique: type[Technique]) -> tuple[str, ...]:
    """Return the groups that a line which starts with a technique takes."""
    usual = ("binding", "running", "output")
    return (*usual, "scoring") if technique.body == "objective" else usual


_ALIASES = {"runtime": "runtimes"}
_Group = TypeVar("_Group", bound=Shared)


@dataclass(frozen=True)
class Request:
    """Hold what a line asks for beside its verb.

    Args:
        recipe: The techniques.
        given: Values of the shared options that the line gives, by group and name.
        defaults: What `%config NbOpt` gives running and measuring where the line does not.
    """

    recipe: Recipe = field(default_factory=Recipe)
    given: Mapping[type[Shared], Mapping[str, Any]] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in self.given:
            self.group(kind)  # so that a wrong value is told before any work

    def group(self, kind: type[_Group]) -> _Group:
        """Return a group of shared options, defaults filled in."""
        usual = self.defaults if kind is Running else {}
        return kind(**{**usual, **self.given.get(kind, {})})

    @property
    def binding(self) -> dict[str, Any]:
        """Return what of the workload the line names, and nothing else."""
        return dict(self.given.get(Binding, {}))

    def with_model(self, model: Any) -> Request:
        """Return the request with the model that a cell's body gave."""
        return dataclasses.replace(self, given={**self.given, Binding: {**self.binding, "model": model}})


def shared_options(groups: Iterable[str]) -> dict[str, Option]:
    """Return the options of the groups, by each name that a line may use for them."""
    found = {name: each for group in groups for name, each in options_of(GROUPS[group]).items()}
    return found | {alias: found[name] for alias, name in _ALIASES.items() if name in found}
