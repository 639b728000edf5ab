"""Each choice as factors of the weights: all candidates in one set of weights, by what is multiplied with zero.

A weight of the whole model times the factors of every choice is the weight of the candidate, with zeros where units,
the rim of a kernel or a block are left out. With factors between, for weights of a mixture, it is the mixture that a
differentiable search goes by (for widths that of FBNetV2, Wan et al. 2020, arXiv 2004.05565), and the gradient with
respect to those weights follows from that with respect to the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbopt.architectures.parts import Kernel
from nbopt.architectures.space import BLOCK, KERNEL, WIDTH, Choice, Space, kept_units
from nbopt.narrowing.widths import Width, least

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Factor:
    """Say what a weight is multiplied with, by one choice.

    Args:
        choice: Index of the choice.
        axis: The axis of the weight along which it varies; None for the weight as a whole.
        lines: For each option of the choice 1 or 0 for each place of that axis, or one number for the whole.
        rank: Axes of the weight.
    """

    choice: int
    axis: int | None
    lines: Array
    rank: int

    def shaped(self, line: Array) -> Array:
        """Return numbers along the axis in the shape that the weight is multiplied with."""
        shape = [1] * self.rank
        if self.axis is not None:
            shape[self.axis] = -1
        return line.reshape(shape)

    def along(self, values: Array) -> Array:
        """Return the sums of an array of the weight's shape over all other axes."""
        if self.axis is None:
            return values.sum().reshape(1)
        return np.asarray(values.sum(tuple(axis for axis in range(self.rank) if axis != self.axis)))


class Factors:
    """Know for each weight by what every choice multiplies it.

    Args:
        space: The choices.
        importances: Of each width's units: the least important leave first, so that what a narrow candidate has, a
            wider one has too.
    """

    def __init__(self, space: Space, importances: Mapping[str, Array]) -> None:
        self.space = space
        self._importances = importances
        self.of: dict[str, list[Factor]] = {}
        self.gates: dict[str, int] = {}
        widths = {width.name: width for width in space.parts.widths}
        kernels = {kernel.layer: kernel for kernel in space.parts.kernels}
        blocks = {block.name: block for block in space.parts.blocks}
        for index, choice in enumerate(space.choices):
            for member in choice.members:
                if choice.kind == WIDTH:
                    self._add_width(index, choice, widths[member])
                elif choice.kind == KERNEL:
                    self._add_kernel(index, choice, kernels[member])
                elif choice.kind == BLOCK:
                    ends = blocks[member].ends
                    if not ends:
                        self.gates[member] = index
                    for weight in ends:
                        self._add(weight, index, None, np.asarray(choice.options, np.float32)[:, None])

    def going(self, width: Width, stay: int) -> Array:
        """Return the units of a width that leave where so many stay: of a greater number a subset."""
        return least(width, self._importances[width.name], width.size - stay)

    def one_hot(self, setting: Sequence[int]) -> list[Array]:
        """Return the weights of the mixture that is one candidate."""
        return [
            np.eye(len(choice.options), dtype=np.float32)[int(place)]
            for choice, place in zip(self.space.choices, setting, strict=True)
        ]

    def mixed(self, weights: Sequence[Array]) -> dict[str, list[Array]]:
        """Return, for each weight of the model, the arrays that it is multiplied with, one for each of its factors.

        Args:
            weights: For each choice the share of each option in the mixture.
        """
        return {
            name: [factor.shaped(weights[factor.choice] @ factor.lines) for factor in factors]
            for name, factors in self.of.items()
        }

    def gated(self, weights: Sequence[Array]) -> dict[str, float]:
        """Return how much of each block that the framework skips itself is in the mixture, 0 to 1."""
        return {block: float(weights[index][-1]) for block, index in self.gates.items()}

    def masks(self, setting: Sequence[int]) -> dict[str, Array]:
        """Return which single weights of the model a candidate has."""
        found = {}
        for name, parts in self.mixed(self.one_hot(setting)).items():
            mask = np.ones(self.space.parts.shapes[name], dtype=bool)
            for part in parts:
                mask &= part > 0.5
            found[name] = mask
        return found

    def gradients(
        self, weights: Sequence[Array], of_weights: Mapping[str, Array], of_gates: Mapping[str, float]
    ) -> list[Array]:
        """Return the gradient with respect to the shares of a mixture.

        Args:
            weights: For each choice the share of each option in the mixture.
            of_weights: For each weight of the model: the gradient with respect to what it is after it was multiplied,
                times what it was before.
            of_gates: The gradient with respect to how much of each block is in the mixture.
        """
        found = [np.zeros(len(row)) for row in weights]
        mixed = self.mixed(weights)
        for name, slope in of_weights.items():
            for at, factor in enumerate(self.of.get(name, ())):
                rest = np.asarray(slope, np.float64)
                for other, part in enumerate(mixed[name]):
                    if other != at:
                        rest = rest * part
                found[factor.choice] += factor.lines @ factor.along(rest)
        for block, of_gate in of_gates.items():
            found[self.gates[block]][-1] += of_gate
        return found

    def _add(self, weight: str, choice: int, axis: int | None, lines: Array) -> None:
        rank = len(self.space.parts.shapes[weight])
        self.of.setdefault(weight, []).append(Factor(choice, None if axis is None else axis % rank, lines, rank))

    def _add_width(self, index: int, choice: Choice, width: Width) -> None:
        stays = np.ones((len(choice.options), width.size + 1), np.float32)  # the last for places of no unit
        for place, share in enumerate(choice.options):
            stays[place, self.going(width, kept_units(width, share))] = 0
        for cut in width.cuts:
            if cut.weight in self.space.parts.shapes:  # statistics of a BatchNorm are no weights
                self._add(cut.weight, index, cut.axis, stays[:, cut.units])

    def _add_kernel(self, index: int, choice: Choice, kernel: Kernel) -> None:
        lines = np.zeros((len(choice.options), kernel.size), np.float32)
        for place, size in enumerate(choice.options):
            rim = (kernel.size - int(size)) // 2
            lines[place, rim : kernel.size - rim] = 1
        for axis in kernel.axes:
            self._add(kernel.weight, index, axis, lines)
