"""How a learning rate goes over a training: words, and how many steps each part of a schedule has.

The curves themselves are torch's `lr_scheduler` and Keras's `optimizers.schedules`; what both must agree on is here.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULES = ("constant", "step", "exponential", "cosine", "one_cycle", "wsd", "plateau", "schedule_free")
MONITORS = ("loss", "metric", "both")

ONE_CYCLE_RISE = 0.3
"""Share of one-cycle that rises where no warm-up is given: torch's and fastai's default."""

ONE_CYCLE_START = 25.0
"""One-cycle starts at the learning rate over this, and ends at that over `ONE_CYCLE_END`: torch's defaults."""

ONE_CYCLE_END = 1e4


@dataclass(frozen=True)
class Phases:
    """Divide the steps of a training among the parts of a schedule.

    Args:
        total: Steps in all, 1 or more.
        warmup: Steps in which the rate rises.
        main: Steps after that, up to the cool-down.
        cooldown: Steps at the end in which it falls to 0.
        drops: Steps after the warm-up at which it drops.
        cycle: Steps of one cycle of the main part.
    """

    total: int
    warmup: int
    main: int
    cooldown: int
    drops: tuple[int, ...]
    cycle: int


def phases(
    schedule: str, total: int, *, warmup: float = 0.0, cooldown: float = 0.2, drops: int = 2, cycles: int = 1
) -> Phases:
    """Return how many steps each part has; every part that the schedule asks for has at least one where there is room.

    Args:
        schedule: One of `SCHEDULES`.
        total: Steps of the training.
        warmup: Share of them in which the rate rises.
        cooldown: Share of them in which "wsd" falls.
        drops: How often "step" drops, at equal distances.
        cycles: How often "cosine" starts again, the first time included.
    """
    total = max(1, total)
    rising = min(total - 1, max(1, round(warmup * total))) if warmup > 0 and total > 1 else 0
    left = total - rising
    falling = min(left, max(1, round(cooldown * total))) if schedule == "wsd" else 0
    main = left - falling
    places = tuple(round(main * (index + 1) / (drops + 1)) for index in range(drops)) if schedule == "step" else ()
    return Phases(total, rising, main, falling, places, max(1, -(-main // max(1, cycles))))


def warmup_start(steps: int) -> float:
    """Return the share of the learning rate that a warm-up of so many steps begins with: never a step of nothing."""
    return 1.0 / (steps + 1)


def one_cycle_share(total: int, warmup: float) -> float:
    """Return the share of the steps in which one-cycle rises, a hair less where that is one step.

    torch's OneCycleLR (2.13) divides by the steps of the rise less one; with fewer it begins at the top, as it should.
    """
    share = float(warmup or ONE_CYCLE_RISE)
    return share * (1 - 1e-6) if share * total == 1 else share


def one_cycle_ends(total: int, warmup: float) -> tuple[float, float]:
    """Return how many steps one-cycle rises, and how many it falls, as torch's OneCycleLR counts them."""
    rise = max(0.0, one_cycle_share(total, warmup) * total - 1)
    return rise, max(1e-6, total - 1 - rise)
