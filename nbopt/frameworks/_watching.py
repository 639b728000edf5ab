"""What a training is judged by after each epoch: the state that is kept, and whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from nbopt.data import Split
from nbopt.frameworks import Fitting
from nbopt.training import TrainingPlan


class Patience:
    """Count the epochs since a figure was last better.

    Keras's EarlyStopping does this for one figure; here are two, or fewer, in both frameworks alike.

    Args:
        patience: Epochs without a gain that are one too many; 0 never are.
        min_delta: A gain is more than this.
    """

    def __init__(self, patience: int, min_delta: float = 0.0) -> None:
        self.patience, self.min_delta = patience, min_delta
        self.best: list[float] = []
        self.waited = 0

    def see(self, *figures: float) -> bool:
        """Take the figures of an epoch, all of them better when lower; return whether it is time to stop."""
        gained = False
        for index, figure in enumerate(figures):
            if index == len(self.best):
                self.best.append(math.inf)
            if figure < self.best[index] - self.min_delta:
                self.best[index] = figure
                gained = True
        self.waited = 0 if gained else self.waited + 1
        return bool(figures) and 0 < self.patience <= self.waited


class Watch:
    """Score a model after each epoch, and hold the best state.

    Args:
        plan: What decides which state is the best, and when to stop.
        fitting: What scores.
        state: Returns a copy of the model's weights.
        loss_on: Returns the mean loss on a split.
    """

    def __init__(
        self, plan: TrainingPlan, fitting: Fitting, state: Callable[[], Any], loss_on: Callable[[Split], float]
    ) -> None:
        self.plan, self.fitting, self._state, self._loss_on = plan, fitting, state, loss_on
        self._sign = 1.0 if fitting.greater_is_better else -1.0
        self._patience = Patience(plan.patience, plan.min_delta)
        self._best: tuple[float, ...] = (-math.inf,)
        self.keeps = fitting.score is not None and plan.keep_best
        self.scores: list[float] = []
        self.valid_losses: list[float] = []
        self.rates: list[float] = []
        self.best_state: Any = None
        self._best_epoch = 0

    def look(self, model: Any, epoch: int, *, done: float) -> str:
        """Judge the model after an epoch (0: before training); return why training shall end, or "".

        Args:
            model: The model, with the weights to be judged, in evaluation mode.
            epoch: Epochs that are completed.
            done: Share of the training that is done.
        """
        ready = self.fitting.paced(model, done)
        score = self._score(model)
        loss = None
        if self.plan.watches_loss and self.fitting.valid is not None:
            loss = self._loss_on(self.fitting.valid)
            self.valid_losses.append(loss)
        if not ready:
            return ""
        if self.keeps:
            rank = self._rank(score, loss)
            # A tie goes to the later state: at equal quality the one that saw more data.
            if rank >= self._best:
                # The old copy goes first, for memory: were it interrupted here, the model itself has the best state.
                self.best_state = None
                self._best, self._best_epoch = rank, epoch
                self.best_state = self._state()
        if self._patience.see(*self._watched(score, loss)):
            what = {"loss": "the loss", "metric": "the metric", "both": "the loss and the metric"}[self.plan.monitor]
            epochs = f"{self.plan.patience} epoch{'s' if self.plan.patience > 1 else ''}"
            return f"{what} on validation did not get better in {epochs}, after epoch {epoch}"
        return ""

    def _score(self, model: Any) -> float | None:
        if self.fitting.score is None or not (self.plan.keep_best or self.plan.watches):
            return None
        self.scores.append(self.fitting.score(model))
        return self._sign * self.scores[-1]

    def _rank(self, score: float | None, loss: float | None) -> tuple[float, ...]:
        """Return what is greater for the better state."""
        metric = -math.inf if score is None else score
        if loss is None or not self.plan.patience or self.plan.monitor == "metric":
            return (metric,)
        return (-loss,) if self.plan.monitor == "loss" else (metric, -loss)

    def _watched(self, score: float | None, loss: float | None) -> list[float]:
        """Return the figures that patience is counted on, lower ones better; what can't be had is left out."""
        metric = None if score is None else -score
        figures = {"loss": (loss,), "metric": (metric,), "both": (loss, metric)}[self.plan.monitor]
        known = [figure for figure in figures if figure is not None]
        return known or ([metric] if metric is not None else [])

    @property
    def value(self) -> float | None:
        """Return the figure that "plateau" follows, lower ones better: the loss, or the metric where that is asked."""
        if self.valid_losses:
            return self.valid_losses[-1]
        return -self._sign * self.scores[-1] if self.scores else None

    def kept_epoch(self, epochs: int) -> int:
        """Return the epoch whose state is kept, of so many that were completed."""
        return self._best_epoch if self.keeps else epochs
