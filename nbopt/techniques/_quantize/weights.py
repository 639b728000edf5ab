"""Weights alone in fewer bits: which layer goes to how many."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_GROUP = 128
"""Inputs that share a scale: 4.25 bits a weight in all, with scales in float32."""


def bits_of(widths: Mapping[str, int], bits: int, group: int) -> dict[str, int]:
    """Return the bits of each linear layer: `bits` where the group divides its inputs, else 8.

    Args:
        widths: Inputs of each layer by name.
        bits: 4 or 8.
        group: Inputs that share a scale.
    """
    return {name: bits if bits == 8 or width % group == 0 else 8 for name, width in widths.items()}


def block_of(width: int, group: int, groups: tuple[int, ...]) -> int:
    """Return the block for a layer of 8 bits: the group where it divides its inputs, else the largest that does.

    Where none does, the smallest: kernels fill the last block up with zeros, which are stored.
    """
    return max((size for size in groups if size <= group and width % size == 0), default=min(groups))


def told(widths: Mapping[str, int], chosen: Mapping[str, int], bits: int, group: int) -> tuple[str, ...]:
    """Return a note that names the layers which got more bits than were asked for, and why."""
    odd = [f"{name} ({widths[name]} inputs)" for name, count in chosen.items() if count != bits]
    if not odd:
        return ()
    few = ", ".join(odd[:6]) + (f" and {len(odd) - 6} more" if len(odd) > 6 else "")
    return (f"int8 in place of int{bits}, because groups of {group} do not divide its inputs: {few}",)
