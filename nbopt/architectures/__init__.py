"""Architectures derived from the user's model: what may change in it, the space of that, and weights shared in it.

Everything here is decided over NumPy. A candidate is a `Blueprint`: how many units each width keeps, how large each
kernel is, which blocks are left out. With the weights of what is left out at zero the whole model computes what the
candidate does (`factors.py`), which is how all candidates share one set of weights; `lowering.py` says what a framework
is asked for.
"""

from __future__ import annotations

from nbopt.architectures.parts import Block, Kernel, Parts
from nbopt.architectures.space import Blueprint, Choice, Space, space_of

__all__ = ["Block", "Blueprint", "Choice", "Kernel", "Parts", "Space", "space_of"]
