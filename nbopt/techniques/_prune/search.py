"""The sparsity that keeps within the user's limits, found by trying: size and latency by the file that would ship."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbopt.errors import ModelError, OptionError

LOW, HIGH = 0.05, 0.95
TRIES = 6
"""Sparsities tried between the least and the greatest: the interval is then 0.014 wide."""
AIM = 0.95
"""Latency is aimed at this share of the limit, since it is measured again, and never twice the same."""


@dataclass(frozen=True)
class Tried:
    """Say what came of one sparsity.

    Args:
        share: The sparsity.
        figure: What came of it, in words.
        within: Whether it is within the limits.
    """

    share: float
    figure: str
    within: bool

    def __str__(self) -> str:
        return f"{self.share:.2f}: {self.figure}{'' if self.within else ', too much'}"


def least_within(attempt: Callable[[float], Tried], limits: str) -> tuple[float, list[Tried]]:
    """Return the least sparsity that is within limits which more of it meets: size and latency.

    Args:
        attempt: Prunes to a sparsity and measures.
        limits: The limits, in words.

    Raises:
        ModelError: Even the greatest sparsity is not within them.
    """
    tried = [attempt(HIGH)]
    if not tried[0].within:
        raise ModelError(
            f"a sparsity of at most {HIGH} that keeps within {limits}",
            str(tried[0]),
            "allow more, or prune and quantize: prune --structured | quantize",
        )
    low, high = LOW, HIGH
    for _ in range(TRIES):
        middle = (low + high) / 2
        tried.append(attempt(middle))
        low, high = (low, middle) if tried[-1].within else (middle, high)
    return high, tried


def most_within(attempt: Callable[[float], Tried], limits: str) -> tuple[float, list[Tried]]:
    """Return the greatest sparsity within a limit that less of it meets: the loss of quality.

    Raises:
        ModelError: Not even the least sparsity is within it.
    """
    tried: list[Tried] = []
    low, high = 0.0, HIGH
    for _ in range(TRIES):
        middle = (low + high) / 2
        tried.append(attempt(middle))
        low, high = (middle, high) if tried[-1].within else (low, middle)
    if not low:
        raise ModelError(
            f"a sparsity that keeps within {limits}", "; ".join(map(str, tried)), "more --epochs, or allow more"
        )
    return low, tried


def no_limits() -> OptionError:
    """Return the error for a search without anything to keep within."""
    return OptionError(
        "a limit that --sparsity auto keeps within",
        "none",
        "--max-size 200KB, --max-latency 1ms (both with --structured) or --max-drop 1%; or a number: --sparsity 0.5",
    )
