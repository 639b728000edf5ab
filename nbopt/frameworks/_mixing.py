"""Which rows of a batch are mixed, by how much, and where: mixup and CutMix before any framework.

The labels are mixed by mixing losses: the loss of a mixed row is its share of the loss under its own label plus the
rest of the loss under its partner's. For every loss that is linear in the label (cross-entropies, also with weights)
that is the loss of the mixed label; for squared errors it differs by a constant, so that gradients are the same. So
class numbers, columns, values, a user's own loss and row weights all go alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbopt.errors import DataError
from nbopt.training import TrainingPlan

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mix:
    """Say how one batch is mixed.

    Args:
        order: For each row its partner.
        share: What each row keeps of itself, 0 to 1.
        box: Top, bottom, left and right of what comes from the partner, as shares of height and width; None where all
            of the row is blended.
    """

    order: NDArray[np.int64]
    share: float
    box: Box | None = None

    def region(self, shape: Sequence[int]) -> tuple[slice, ...] | None:
        """Return the slices of a batch of `shape` that come from partners, None where it is no image or is blended."""
        axes = image_axes(shape)
        if self.box is None or axes is None:
            return None
        cut = [slice(None)] * len(shape)
        for axis, (low, high) in zip(axes, (self.box[:2], self.box[2:]), strict=True):
            cut[axis] = slice(round(low * shape[axis]), round(high * shape[axis]))
        return tuple(cut)


@dataclass
class Mixing:
    """Draw how each batch of an epoch is mixed.

    Args:
        plan: Has `mixup`, `cutmix` and the seed.
        epoch: Which one.
    """

    plan: TrainingPlan
    epoch: int = 0

    def __post_init__(self) -> None:
        # A generator of its own: rows come in the same order as in a training without mixing.
        self.rng = np.random.default_rng([self.plan.seed, self.epoch, 0x313])

    @classmethod
    def of(cls, plan: TrainingPlan, epoch: int = 0) -> Mixing | None:
        """Return what mixes the batches of a plan, None where it mixes none."""
        return cls(plan, epoch) if plan.mixup or plan.cutmix else None

    def draw(self, rows: int, described: Sequence[tuple[str, Sequence[int]]]) -> Mix:
        """Return how a batch is mixed.

        Args:
            rows: How many it has.
            described: Dtype and shape of each input.

        Raises:
            DataError: The inputs can't be mixed.
        """
        refused = not_mixable(described, self.plan.mixup, self.plan.cutmix)
        if refused is not None:
            raise refused
        plan, rng = self.plan, self.rng
        order = rng.permutation(rows)
        if plan.cutmix and not (plan.mixup and rng.random() < 0.5):
            image = next(shape for _, shape in described if image_axes(shape) is not None)
            box, share = draw_box(rng, float(rng.beta(plan.cutmix, plan.cutmix)), image)
            return Mix(order, share, box)
        return Mix(order, float(rng.beta(plan.mixup, plan.mixup)))


def draw_box(rng: np.random.Generator, share: float, shape: Sequence[int]) -> tuple[Box, float]:
    """Return a box whose area is 1 - share, cut off at the borders, and the share that is left then.

    Args:
        rng: Draws where its middle lies.
        share: Of the image that is to be kept, 0 to 1.
        shape: Of a batch of images.
    """
    axes = image_axes(shape)
    assert axes is not None
    half = float(np.sqrt(1 - share)) / 2
    bounds: list[float] = []
    kept = 1.0
    for axis in axes:
        size = shape[axis]
        middle = float(rng.random())
        low, high = (round(max(0.0, min(1.0, middle + sign * half)) * size) for sign in (-1, 1))
        bounds += [low / size, high / size]
        kept *= (high - low) / size
    return (bounds[0], bounds[1], bounds[2], bounds[3]), 1 - kept


def image_axes(shape: Sequence[int]) -> tuple[int, int] | None:
    """Return the axes of height and width of a batch of images, None where it holds none.

    Of four axes one is the channels: of the second and the last the shorter. Of three, rows are images without channels
    where they are square; (rows, steps, features) is a sequence.
    """
    if len(shape) == 4:
        return (2, 3) if shape[1] < shape[3] else (1, 2)
    if len(shape) == 3 and shape[1] == shape[2]:
        return (1, 2)
    return None


def not_mixable(described: Sequence[tuple[str, Sequence[int]]], mixup: float, cutmix: float) -> DataError | None:
    """Return why inputs can't be mixed, None where they can.

    Args:
        described: Dtype and shape, rows first, of each input.
        mixup: As in the plan.
        cutmix: As in the plan.
    """
    words = "mixup" if mixup else "cutmix"
    other = next(((dtype, shape) for dtype, shape in described if "float" not in dtype), None)
    if other is not None:
        dtype, shape = other
        return DataError(
            f"floating inputs for {words}",
            f"an input of {dtype}, shape (rows{''.join(f', {size}' for size in shape[1:])}): half of one token or "
            "category and half of another is none",
            "give images as floats; for token ids and categories use dropout, label smoothing or averaging",
        )
    if cutmix and all(image_axes(shape) is None for _, shape in described):
        shapes = ", ".join(f"(rows{''.join(f', {size}' for size in shape[1:])})" for _, shape in described)
        return DataError("images for cutmix: (rows, channels, height, width)", f"inputs {shapes}", "take mixup instead")
    return None
