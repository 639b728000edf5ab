"""The learning-rate range test: how the loss answers while the rate grows, and where to start from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from nbopt.batches import Batch
from nbopt.data import Split, kept_randomness
from nbopt.errors import DataError, OptionError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.progress import Progress, ProgressCallback, silent
from nbopt.training import TrainingPlan
from nbopt.workload import Workload

FALL = 0.02
"""Share that the loss must fall by to tell of a rate: less is the noise of batches."""

DIVERGED = 4.0
"""The test ends where the loss is so many times its least."""

FEWEST = 10


@dataclass(frozen=True)
class LRRange:
    """Hold a range test.

    Args:
        rates: Learning rate of each step, growing.
        losses: Loss of each step.
        suggested: Rate to start from, None where the losses tell of none.
        reason: Why that one, or why none.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float | None
    reason: str

    renderer: ClassVar[Callable[[LRRange], dict[str, Any]] | None] = None
    """Set by nbopt.render when it is imported: this module lies below it."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, with losses that are finite numbers."""
        return {
            "rates": list(self.rates),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
            "suggested": self.suggested,
            "reason": self.reason,
        }

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if LRRange.renderer is None:
            return {"text/plain": self.text}
        return LRRange.renderer(self)

    @property
    def text(self) -> str:
        """Return it as a sentence."""
        steps = (
            f"{len(self.rates)} steps from {self.rates[0]:.2g} to {self.rates[-1]:.2g}" if self.rates else "no steps"
        )
        found = "no learning rate suggested" if self.suggested is None else f"learning rate {self.suggested:.2g}"
        return f"range test, {steps}: {found}; {self.reason}"

    def __repr__(self) -> str:
        return self.text


def smoothed(losses: Sequence[float]) -> np.ndarray[Any, Any]:
    """Return losses averaged over their neighbours, a seventh of the test wide: centred, so that no rate is late."""
    series = np.asarray(losses, dtype=np.float64)
    reach = max(1, len(series) // 14)
    return np.asarray([series[max(0, i - reach) : i + reach + 1].mean() for i in range(len(series))])


def suggest(rates: Sequence[float], losses: Sequence[float]) -> tuple[float | None, str]:
    """Return the rate to start from, and why: where the loss falls fastest, a tenth of that of the least loss at most.

    Smith 2017 (https://arxiv.org/abs/1506.01186); the tenth is the rule of fastai's `lr_find`.

    Args:
        rates: Rates of the steps, growing.
        losses: Losses of the steps.
    """
    known = [(rate, loss) for rate, loss in zip(rates, losses, strict=True) if math.isfinite(loss)]
    if len(known) < FEWEST:
        return None, f"{len(known)} steps are too few to tell"
    logs = np.log10([rate for rate, _ in known])
    curve = smoothed([loss for _, loss in known])
    start = float(np.median(curve[: max(3, len(curve) // 10)]))
    least = int(curve.argmin())
    if curve[least] > start - FALL * abs(start):
        rising = np.flatnonzero(curve > start + 0.1 * abs(start))
        where = f", and rises from {10 ** logs[rising[0]]:.1e} on" if len(rising) else ""
        return None, f"the loss does not fall at any rate{where}: this model may be trained already"
    slopes = np.gradient(curve, logs)
    steepest = int(slopes[: least + 1].argmin())
    chosen = min(float(10 ** logs[steepest]), float(10 ** logs[least]) / 10)
    return chosen, f"the loss falls fastest at {10 ** logs[steepest]:.1e} and is least at {10 ** logs[least]:.1e}"


def lr_range(
    workload: Workload,
    low: float = 1e-6,
    high: float = 1.0,
    *,
    steps: int = 100,
    optimizer: str = "adamw",
    batch_size: int = 128,
    weight_decay: float = 0.0,
    seed: int = 0,
    begin: Sequence[Callable[[Any, int], Any]] = (),
    progress: ProgressCallback = silent,
) -> LRRange:
    """Train a copy of the model for some steps while its learning rate grows, and suggest a rate.

    Args:
        workload: The model and its train data; neither is changed.
        low: Rate of the first step, above 0.
        high: Rate of the last step, above `low`; it ends earlier where the loss explodes.
        steps: Steps, 10 or more.
        optimizer: As of a `TrainingPlan`.
        batch_size: Rows a step where the data is arrays.
        weight_decay: As of a `TrainingPlan`.
        seed: Seed of everything random.
        begin: As of a `Draft`: weights drawn anew.
        progress: Told of each step.

    Raises:
        OptionError: A value is out of range.
        DataError: There is no train data, or its loss is not finite.

    Examples:
        >>> nbopt.lr_range(work).suggested  # doctest: +SKIP
        0.0021
    """
    if steps < FEWEST:
        raise OptionError(f"steps of {FEWEST} or more", f"{steps}", "steps=100")
    if not 0 < low < high:
        raise OptionError("two rates above 0, the lower one first", f"{low} and {high}", "low=1e-6, high=1.0")
    plan = TrainingPlan(optimizer=optimizer, weight_decay=weight_decay, batch_size=batch_size, seed=seed)
    return range_test(workload, workload.model, plan, low, high, steps=steps, begin=begin, progress=progress)


def range_test(
    workload: Workload,
    model: Any,
    plan: TrainingPlan,
    low: float = 1e-6,
    high: float = 1.0,
    *,
    steps: int = 100,
    begin: Sequence[Callable[[Any, int], Any]] = (),
    hold: Sequence[Callable[[Any], None]] = (),
    progress: ProgressCallback = silent,
) -> LRRange:
    """Do the same with a copy of another model than the workload's, as a plan would train it.

    Args:
        workload: Its train data and loss.
        model: Of the workload's framework.
        plan: Its optimizer, batch size, penalties, teacher and seed count; how long it is and its rate do not.
        low: As of `lr_range`.
        high: Likewise.
        steps: Likewise.
        begin: Likewise.
        hold: As of a `Draft`: what must hold after each step.
        progress: Told of each step.

    Raises:
        DataError: There is no train data, or its loss is not finite.
    """
    if workload.train is None:
        raise DataError("train data, on which a range test trains", "none", "Workload(..., train=...)")
    rates: list[float] = []
    losses: list[float] = []

    def each_step(loss: float, rate: float) -> bool:
        rates.append(rate)
        losses.append(loss)
        progress(Progress("range test", len(rates), steps, f"learning rate {rate:.1e}, loss {loss:.3f}"))
        exploded = len(losses) >= FEWEST and loss > DIVERGED * max(min(losses), 1e-3)
        return exploded or len(rates) >= steps

    with kept_randomness(workload.train):
        split = workload.train
        a_pass = split.steps(plan.batch_size)
        if a_pass is None:
            # A source that does not tell its length: as many of its batches as are needed, as a list.
            split = Split(list(_First(split, plan, steps)), split.name)
        elif a_pass > steps:
            # The curve spans whole passes, and over a long one its factor would be no number any more.
            split = Split(_First(split, plan, steps), split.name)
        a_pass = split.steps(plan.batch_size) or 1
        epochs = -(-steps // a_pass)
        tested = plan.adjusted(
            epochs=epochs,
            learning_rate=low,
            schedule="exponential",
            warmup=0.0,
            decay=(high / low) ** (epochs * a_pass / max(1, steps - 1)),
            keep_best=False,
            patience=0,
            max_seconds=None,
            averaging="none",
            devices=1,
        )
        model = workload.framework.clone(model)
        for make in begin:
            model = make(model, plan.seed)
        try:
            workload.framework.fit(model, tested, Fitting(split, workload.loss, hold=tuple(hold), each_step=each_step))
        except TrainingError:
            # That it diverges somewhere is what the test is for.
            progress(Progress("range test", len(rates), steps, "diverged"))
    suggested, reason = suggest(rates, losses)
    return LRRange(tuple(rates), tuple(losses), suggested, reason)


class _First:
    """Be the first batches of a split, as a training reads them."""

    def __init__(self, split: Split, plan: TrainingPlan, steps: int) -> None:
        self._split, self._plan, self._steps = split, plan, steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(self._plan.seed)
        return itertools.islice(self._split.training_batches(self._plan.batch_size, rng), self._steps)
