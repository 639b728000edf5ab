"""What may change in a model: widths, kernels, blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nbopt.narrowing.widths import Width


@dataclass(frozen=True)
class Kernel:
    """Describe a convolution whose kernel can be cropped around its centre without moving or resizing its output.

    Args:
        layer: Name of the layer.
        weight: Name of its kernel.
        axes: The axes of the weight along which the kernel lies.
        size: Its size along each of them, odd.
        least: The smallest it can be cropped to: 1, or what its padding allows.
    """

    layer: str
    weight: str
    axes: tuple[int, ...]
    size: int
    least: int = 1


@dataclass(frozen=True)
class Block:
    """Describe a residual block that keeps its shape: what it is given can take the place of what it gives.

    Args:
        name: Its name.
        ends: Weights with whose zeros the block adds nothing to what it is given; none where the framework skips the
            block itself.
        inside: Names of the layers in it: where it is skipped, their widths and kernels don't matter.
    """

    name: str
    ends: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """Hold all that may change in a model, in the order in which the model computes.

    Args:
        widths: Units that leave together; see `nbopt.narrowing`.
        kernels: Convolutions.
        blocks: Blocks that can be left out.
        shapes: Of all that trains, by name.
        layers: The layer of each of those, by name.
        notes: What must be said of what can't change.
    """

    widths: Sequence[Width] = ()
    kernels: Sequence[Kernel] = ()
    blocks: Sequence[Block] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
