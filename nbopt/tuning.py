"""Tuning: what a search of an objective's parameters found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.errors import OptionError
from nbopt.studies.ending import Budget
from nbopt.studies.opening import REASON
from nbopt.studies.running import Ended
from nbopt.studies.standings import Standing, winner
from nbopt.studies.trials import best_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Standings:
    """Hold the rows of a search's result: settings, each over fresh seeds.

    Args:
        rows: The setting that the search began with, the finalists, the best of the random search.
    """

    rows: tuple[Standing, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Standing:
        for row in self.rows:
            if row.name == name:
                return row
        raise OptionError(f"a row among {', '.join(row.name for row in self.rows)}", repr(name))

    def frame(self) -> pd.DataFrame:
        """Return a row for each setting and objective."""
        import pandas as pd

        rows = [
            {
                "setting": row.name,
                "objective": index,
                "found": row.found[index],
                "score": mean.value,
                "score_low": mean.low,
                "score_high": mean.high,
                "seeds": len(row.repeats),
                "change": row.changes[index].value if row.changes else None,
                "change_low": row.changes[index].low if row.changes else None,
                "change_high": row.changes[index].high if row.changes else None,
                "verdict": row.verdicts[index] if row.verdicts else "",
                **row.params,
            }
            for row in self.rows
            for index, mean in enumerate(row.means)
        ]
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Tuning:
    """Hold what a search found.

    Args:
        study: The Optuna study, with every trial.
        ended: How the search ended.
        comparison: The best settings over fresh seeds, the setting that it began with first.
        metric: Name of the score.
        rival: The study of the random search beside it, None where there is none.
        budget: What it was allowed.
        seconds: How long all of it took.
        notes: What must be said.
    """

    study: Any
    ended: Ended = field(default_factory=Ended)
    comparison: Standings = Standings(())
    metric: str = "score"
    rival: Any = None
    budget: Budget = field(default_factory=Budget)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    renderer: ClassVar[Callable[[Tuning], dict[str, Any]] | None] = None
    """Set by nbopt.render when it is imported: this module lies below it."""

    @property
    def name(self) -> str:
        """Return the study's name, by which it is resumed."""
        return str(self.study.study_name)

    @property
    def maximize(self) -> tuple[bool, ...]:
        """Return whether larger is better, for each objective."""
        return tuple(direction.name == "MAXIMIZE" for direction in self.study.directions)

    @property
    def best(self) -> Standing | None:
        """Return the setting to go on with, as its repeats tell; None where nothing was repeated."""
        return winner(self.comparison.rows, self.maximize)

    @property
    def best_params(self) -> dict[str, Any]:
        """Return the parameters to go on with: of the best by fresh seeds, or else of the best trial.

        Raises:
            OptionError: No trial gave a number, or none keeps the constraints.
        """
        if self.best is not None:
            return dict(self.best.params)
        found = best_of(self.study)
        if not found:
            raise OptionError("a finished trial that keeps the constraints", "none", "result.frame() has all trials")
        return dict(found[0].params)

    @property
    def cost(self) -> float | None:
        """Return what it cost, None where there is no price."""
        return self.budget.spent(self.seconds)

    def frame(self) -> pd.DataFrame:
        """Return every trial: number, state, values, parameters, seconds, why it failed."""
        import pandas as pd

        rows = []
        for trial in self.study.get_trials(deepcopy=False):
            values = dict(zip(self.objectives, trial.values or (), strict=False))
            lasted = trial.datetime_complete - trial.datetime_start if trial.datetime_complete else None
            rows.append(
                {
                    "trial": trial.number,
                    "state": trial.state.name.lower(),
                    **{name: values.get(name) for name in self.objectives},
                    **trial.params,
                    "seconds": None if lasted is None else lasted.total_seconds(),
                    "reason": trial.user_attrs.get(REASON, ""),
                }
            )
        return pd.DataFrame(rows)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Return a name for each score."""
        many = len(self.study.directions)
        return (self.metric,) if many == 1 else tuple(f"{self.metric} {index + 1}" for index in range(many))

    def figure(self, kind: str) -> Any:
        """Return a figure of the search, interactive where Plotly shows it, with its static form beside.

        Args:
            kind: "history", "importances", "parallel" or "slice".

        Raises:
            OptionError: There is no such figure.
            MissingExtra: Plotly is not installed.
        """
        from nbopt.charts import figure

        return figure(self.study, kind, self.metric)

    def __len__(self) -> int:
        """Return how many trials have ended."""
        return sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if Tuning.renderer is None:
            return {"text/plain": self.comparison.frame().to_string()}
        return Tuning.renderer(self)

    def __repr__(self) -> str:
        return str(self._repr_mimebundle_()["text/plain"])
