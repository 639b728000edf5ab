"""Mix the rows of a batch of torch tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nbopt.batches import Inputs, leaves, map_leaves, rows_of
from nbopt.frameworks._mixing import Mix, Mixing

LossOf = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def draw(mixing: Mixing, inputs: Inputs) -> Mix:
    """Return how this batch is mixed.

    Raises:
        DataError: The inputs can't be mixed.
    """
    return mixing.draw(rows_of(inputs), [(str(leaf.dtype), tuple(leaf.shape)) for leaf in leaves(inputs)])


def mixed(inputs: Inputs, mix: Mix) -> Inputs:
    """Return the inputs mixed."""

    def blend(leaf: torch.Tensor) -> torch.Tensor:
        partner = leaf[torch.from_numpy(mix.order).to(leaf.device)]
        region = mix.region(tuple(leaf.shape))
        if region is None:
            return torch.lerp(partner, leaf, mix.share)
        cut = leaf.clone()
        cut[region] = partner[region]
        return cut

    return map_leaves(blend, inputs)


def mixed_loss(loss: LossOf, target: torch.Tensor, weight: torch.Tensor | None, mix: Mix) -> torch.Tensor:
    """Return the loss under the rows' own labels and their partners', by the shares."""
    order = torch.from_numpy(mix.order).to(target.device)
    partners = loss(target[order], None if weight is None else weight[order])
    return mix.share * loss(target, weight) + (1 - mix.share) * partners
