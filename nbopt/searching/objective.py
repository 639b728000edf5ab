"""What a study of a workload asks: one training by the values of a trial."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nbopt.draft import Context, Draft
from nbopt.fitting import Judge, train
from nbopt.progress import silent
from nbopt.space import Dimension
from nbopt.studies import defaults, draw, values_of
from nbopt.studies.extra import load
from nbopt.studies.trials import SEED
from nbopt.training import TrainingRecord

EPOCHS, SECONDS = "epochs", "seconds"
"""User attributes of a trial: what its training took."""


@dataclass(frozen=True)
class Trained:
    """Hold a training that ended.

    Args:
        values: The values that it was done by, by the dimensions' names.
        draft: The candidate with its trained model.
        record: What the training did.
        quality: Quality of the state that was kept, on the selection rows.
        seed: Its seed.
    """

    values: Mapping[str, Any]
    draft: Draft
    record: TrainingRecord
    quality: float
    seed: int


@dataclass
class OneTraining:
    """Be the objective of a study: draw values, train once by them, return the quality of the state that is kept.

    Args:
        draft: The candidate, untouched.
        context: The workload.
        greater: Larger qualities are better.
        best: The best training of this process so far.
    """

    draft: Draft
    context: Context
    greater: bool
    best: Trained | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave what another process has no use for: the kernel's progress, its measuring, the best model so far."""
        return {**vars(self), "context": replace(self.context, progress=silent, deploy=None), "best": None}

    @property
    def variables(self) -> dict[str, Any]:
        """Return what goes to other processes, by the names that the user knows it by."""
        workload = self.context.workload
        parts = {"model": self.draft.model, "train": workload.train, "valid": workload.valid, "test": workload.test}
        return {**parts, "loss": workload.user_loss, "metric": workload.metric}

    def __call__(self, trial: Any) -> float:
        """Run one trial."""
        values = draw(trial, self.draft.space)
        began, epochs = time.monotonic(), 0

        def judge(epoch: int, quality: float) -> None:
            nonlocal epochs
            epochs = epoch
            trial.report(quality, epoch)
            # Epoch 0 is the same in most trials; and the untouched values are what all others are compared with.
            if epoch and trial.number and trial.should_prune():
                raise load().TrialPruned

        try:
            trained = self.trained(values, trial.user_attrs[SEED], judge)
            epochs = trained.record.epochs
        finally:
            trial.set_user_attr(EPOCHS, epochs)
            trial.set_user_attr(SECONDS, time.monotonic() - began)
        if self.best is None or (trained.quality > self.best.quality) == self.greater:
            self.best = trained
        return trained.quality

    def trained(self, values: Mapping[str, Any], seed: int, judge: Judge | None = None) -> Trained:
        """Train a copy of the candidate with values and a seed.

        Raises:
            TrainingError: It diverged.
        """
        draft, record = train(self.with_values(values), self.context, seed, judge)
        if record.scores and draft.plan.keep_best:
            quality = record.scores[record.kept_epoch]
        else:
            quality = self.context.score(draft.model)
        return Trained(values, draft, record, quality, seed)

    def with_values(self, values: Mapping[str, Any]) -> Draft:
        """Return a copy of the candidate with values in it; the untouched ones leave it exactly as it is."""
        draft = self.draft.with_(model=self.context.workload.framework.clone(self.draft.model))
        if values != untouched(self.draft.space):
            for dimension in self.draft.space:
                if dimension.name in values:
                    draft = dimension.apply(draft, values[dimension.name])
        return draft


def untouched(space: Sequence[Dimension]) -> dict[str, Any]:
    """Return the values that change nothing; of conditional dimensions those that mean something then."""
    return values_of(defaults(space), space)
