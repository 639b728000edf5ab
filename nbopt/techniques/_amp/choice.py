"""Which half precisions can be tried here, and which of those that were tried is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nbopt.errors import OptionError
from nbopt.measurement.intervals import Interval

HALVES = ("bfloat16", "float16")
NO_BF16 = "this CPU has none of AVX512-BF16, AMX-BF16 and BF16, without which bfloat16 is slower than float32"


@dataclass(frozen=True)
class Tried:
    """Hold what steps in a half precision took beside steps in float32.

    Args:
        precision: "bfloat16" or "float16".
        faster: How many times faster its steps are, with the interval; None where the model can't compute in it.
        clear: The interval tells faster from slower, on a machine quiet enough to rank.
        told: The figures as a sentence.
        memory: Bytes of a step in float32 and in it; None where they are not told.
        memory_words: What those bytes are, or why there are none.
    """

    precision: str
    faster: Interval | None
    clear: bool
    told: str
    memory: tuple[int, int] | None = None
    memory_words: str = ""

    @property
    def note(self) -> str:
        """Return step time and memory beside each other."""
        if self.memory is None:
            return f"before training, a step in {self.told}; its memory is not known: {self.memory_words}"
        before, after = (f"{value / 1e6:,.4g} MB" for value in self.memory)
        return f"before training, a step in {self.told}; memory {self.memory_words}: {before} and {after}"


def candidates(asked: str, device: str, native: Sequence[str], fast_bfloat16: bool) -> tuple[str, ...]:
    """Return the half precisions to try; none where "auto" finds none.

    Args:
        asked: "auto", or the precision that must be had.
        device: Where the model lies: "cpu", "cuda:0", "mps".
        native: Halves that the framework trains in there.
        fast_bfloat16: The CPU computes in bfloat16.

    Raises:
        OptionError: The precision that was asked for can't be had here.
    """
    cpu = device.startswith("cpu")
    usable = tuple(native) if not cpu or fast_bfloat16 else tuple(half for half in native if half != "bfloat16")
    if asked == "auto":
        return usable
    if asked in usable:
        return (asked,)
    if asked == "float16":
        expected = "a model on a CUDA GPU, for --precision float16"
        came = f"a model on {device}" + (", where a step in float16 is some 50 times slower" if cpu else "")
        here = "--precision bfloat16" if "bfloat16" in usable else "leave amp out, since here float32 is the fastest"
        raise OptionError(expected, came, f"{here}; or bind a model that lies on a GPU: model.to('cuda')")
    if cpu:
        raise OptionError("a CPU that computes in bfloat16", NO_BF16, "leave amp out, or train on a GPU")
    gpu = "float16" in usable
    came = f"a model on {device}" + (", a card before Ampere" if gpu else "")
    raise OptionError("a GPU that computes in bfloat16", came, "--precision float16" if gpu else "leave amp out")


def chosen(tried: Sequence[Tried], min_gain: float) -> Tried | None:
    """Return what to train in, None for float32.

    The fastest of those whose interval lies above `min_gain`; bfloat16 where it can't be told from the fastest,
    since it needs no scaled loss.

    Args:
        tried: What was timed.
        min_gain: How many times faster steps must be, at the lower bound of the interval; 0 takes the fastest
            whatever it gives.
    """
    timed = [(each, each.faster) for each in tried if each.faster is not None]
    good = [(each, faster) for each, faster in timed if not min_gain or (each.clear and faster.low >= min_gain)]
    if not good:
        return None
    best, most = max(good, key=lambda pair: pair[1].value)
    same = (each for each, faster in good if each.precision == "bfloat16" and faster.high >= most.low)
    return next(same, best)
