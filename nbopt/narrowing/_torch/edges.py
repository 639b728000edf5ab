"""Which layers of a torch module make its output: found in autograd's graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nbopt.batches import Inputs
from nbopt.frameworks._primary import by_name, primary_output
from nbopt.frameworks._torch_module import called

LEAST_DIMENSIONS = 2


def output_layers(model: nn.Module, inputs: Inputs) -> list[nn.Module]:
    """Return the layers whose channels are the model's outputs: the first weight on every path back to the inputs.

    Of outputs beside the primary one, those that this one does not come of: features that are given out too can shrink.
    """
    owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        result = called(model, inputs)
    primary = primary_output(result)
    found = _first_weights(primary.grad_fn, owners)
    before = _weights_before(primary.grad_fn, owners)
    for output in traced_outputs(result):
        found |= {key: owner for key, owner in _first_weights(output.grad_fn, owners).items() if key not in before}
    for parameter, flag in flags:
        parameter.requires_grad_(flag)
    return list(found.values())


def traced_outputs(result: Any) -> list[torch.Tensor]:
    """Return every tensor that a model gives and that autograd follows, however nested."""
    if isinstance(result, torch.Tensor):
        return [result] if result.grad_fn is not None else []
    parts = by_name(result).values() or (result if isinstance(result, (tuple, list)) else ())
    return [tensor for part in parts for tensor in traced_outputs(part)]


def _weights_before(start: Any, owners: dict[int, nn.Module]) -> set[int]:
    """Return the modules whose weights something was computed of, by their `id`."""
    found, pending, seen = set(), [start], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        owner = owners.get(id(getattr(node, "variable", None)))
        if owner is not None:
            found.add(id(owner))
        pending += [child for child, _ in node.next_functions]
    return found


def _first_weights(start: Any, owners: dict[int, nn.Module]) -> dict[int, nn.Module]:
    found: dict[int, nn.Module] = {}
    pending, seen = [start], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        weights = [
            owner
            for child, _ in node.next_functions
            for owner in [_owner(child, owners)]
            if owner is not None and any(p.ndim >= LEAST_DIMENSIONS for p in owner.parameters(recurse=False))
        ]
        if weights:
            found.update({id(owner): owner for owner in weights})
        else:
            pending += [child for child, _ in node.next_functions]
    return found


def _owner(node: Any, owners: dict[int, nn.Module]) -> nn.Module | None:
    """Return the module of a weight that enters here, directly or through the transpose that a Linear makes."""
    while node is not None:
        variable = getattr(node, "variable", None)
        if variable is not None:
            return owners.get(id(variable))
        if type(node).__name__ not in ("TBackward0", "TransposeBackward0", "PermuteBackward0"):
            return None
        node = node.next_functions[0][0]
    return None
