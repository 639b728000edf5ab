"""A sampler around another one, which draws what this one does not."""

from __future__ import annotations

from typing import Any


class Around:
    """Pass on what is not drawn here.

    It has the methods of Optuna's `BaseSampler`, which it can't name as its base: Optuna is imported late.

    Args:
        inner: A sampler of Optuna.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """Return the value of one parameter outside the space that is drawn at once."""
        return self.inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Any, trial: Any) -> None:
        """Tell the other sampler of a trial to come."""
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
        """Tell the other sampler of a trial's end."""
        self.inner.after_trial(study, trial, state, values)
