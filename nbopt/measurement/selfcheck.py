"""A check of the instrument itself: one artifact against itself, and against itself with a known delay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from nbopt.measurement.bench import Bench
from nbopt.measurement.budget import Budget
from nbopt.measurement.intervals import Interval
from nbopt.measurement.lock import measuring
from nbopt.measurement.placement import Placement
from nbopt.measurement.statistics import RatioVerdict
from nbopt.measurement.turns import run_rounds
from nbopt.runtimes import Manifest

LARGEST_REPEAT = 20


@dataclass(frozen=True)
class Trial:
    """Hold one measurement whose true answer is known.

    Args:
        truth: The true ratio baseline / variant: 1 / (1 + delay).
        interval: The measured ratio, with its interval.
        verdict: What was said of the variant.
        contention: How much the machine's other load stretched it.
        foreign: Share of the processors that other processes used, 0 to 1.
        seconds: What it took, without starting the process.
    """

    truth: float
    interval: Interval
    verdict: RatioVerdict
    contention: float
    foreign: float
    seconds: float

    @property
    def covered(self) -> bool:
        """Tell whether the truth lies inside the interval."""
        return self.interval.covers(self.truth)


@dataclass(frozen=True)
class Check:
    """Hold trials of one kind.

    Args:
        delay: Share of its own time by which the variant was prolonged.
        budget: "quick" or "full".
        trials: The trials.
    """

    delay: float
    budget: str
    trials: tuple[Trial, ...]

    def share(self, *verdicts: RatioVerdict) -> float:
        """Return the share of trials with one of these verdicts."""
        counts = Counter(trial.verdict for trial in self.trials)
        return sum(counts[verdict] for verdict in verdicts) / max(1, len(self.trials))

    @property
    def called_different(self) -> float:
        """Return the share of trials in which one side was called faster."""
        return self.share("better", "worse")

    @property
    def covered(self) -> float:
        """Return the share of trials whose interval holds the truth."""
        return sum(trial.covered for trial in self.trials) / max(1, len(self.trials))

    def __str__(self) -> str:
        what = f"against itself, {self.delay:+.0%}" if self.delay else "against itself"
        counts = Counter(trial.verdict for trial in self.trials)
        told = ", ".join(f"{verdict} {count}" for verdict, count in counts.most_common())
        return f"{what}, {self.budget}: {len(self.trials)} trials: {told}; the truth is covered in {self.covered:.0%}"


def check(
    path: Path,
    manifest: Manifest,
    folder: Path,
    *,
    delay: float = 0.0,
    trials: int = 100,
    budget: str = "quick",
    threads: int = 1,
    seed: int = 0,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Check:
    """Measure an artifact against itself as `optimize` measures a variant, with fresh processes in each trial.

    Args:
        path: An exported file.
        manifest: How to run it.
        folder: Shards of rows, the first of which is run.
        delay: Share of its own time by which the variant is prolonged, 0 or more: with 0.05 a call of the baseline is
            20 inferences and one of the variant 21.
        trials: How often, 1 or more.
        budget: "quick" or "full".
        threads: Threads of one inference.
        seed: Seed of the orders.
        on_trial: Called after each trial.

    Raises:
        ExportError: The runtime does not take the model, or a process died.
    """
    done: list[Trial] = []
    plan = Budget.of("full" if budget == "full" else "quick")
    share = Fraction(delay).limit_denominator(LARGEST_REPEAT)
    fresh = partial(
        Bench,
        path,
        manifest,
        threads=threads,
        folder=folder,
        instances=plan.instances,
        processes=plan.processes,
    )
    for number in range(trials):
        place = Placement(threads, seed + number)
        with (
            fresh(wait=False, repeat=share.denominator) as baseline,
            fresh(repeat=share.denominator + share.numerator) as variant,
            measuring(),
        ):
            rounds = run_rounds(
                {"baseline": baseline.side(placement=place), "variant": variant.side(placement=place)},
                plan,
                rng=seed + number,
                pids=(*baseline.pids, *variant.pids),
                apart=True,
                before_round=place.turn,
            )
        trial = Trial(
            float(1 / (1 + share)),
            rounds.ratio("baseline", "variant"),
            rounds.verdict("baseline", "variant"),
            rounds.distortion(),
            rounds.foreign or 0.0,
            rounds.seconds,
        )
        done.append(trial)
        on_trial(trial)
    return Check(delay, budget, tuple(done))
