"""What makes a figure believable: timing, quality, size, memory, audit and the statistics of each."""

from nbopt.measurement.paired import Timing, measure

__all__ = ["Timing", "measure"]
