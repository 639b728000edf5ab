"""Architectures derived from the user's model: what may change in it, the space of that, and weights shared in it.

Everything but the lowering is decided over NumPy. A candidate is a `Blueprint`: how many units each width keeps, how
large each kernel is, which blocks are left out. With the weights of what is left out at zero the whole model computes
what the candidate does (`factors.py`), which is how all candidates share one set of weights.

How a search goes:

1. `Family.of` reads the model: widths by `nbopt.narrowing`, kernels and blocks by the lowering; `space_of` makes few
   choices of that. A space of one point is refused.
2. `to_measure` names candidates that are built, exported and timed (`Context.deploy`); `fitted` shares their time out
   into a table, and tells how far off it is on those that it was not fitted to.
3. One training (`Framework.fit` with `Fitting.teach`) lets candidates learn from the whole model, by `Sandwich`.
4. `explored` asks a controller for candidates within a latency; `Family.judged` scores each, built on its own, with
   BatchNorm's statistics measured anew. FBNet's `Relaxed` takes steps of `Lowering.mixture` in its place.
5. The best for each latency are built, measured and fine-tuned by the plan of the recipe, and chosen by what was
   measured; `uniform_within` and a random search of the same measured latency are built and trained alike.
"""

from __future__ import annotations

from nbopt.architectures.parts import Block, Kernel, Parts
from nbopt.architectures.space import Blueprint, Choice, Space, space_of

__all__ = ["Block", "Blueprint", "Choice", "Kernel", "Parts", "Space", "space_of"]
