"""Which blocks of a stack stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def kept_blocks(places: Sequence[int], share: float) -> list[int]:
    """Return the places of the blocks that stay, evenly spread, the first and the last among them.

    Args:
        places: Places of blocks that could stand for each other, in order.
        share: Of them that stays, above 0; at least one does.
    """
    count = min(len(places), max(1, round(share * len(places))))
    return [places[round(i)] for i in np.linspace(0, len(places) - 1, count)]
