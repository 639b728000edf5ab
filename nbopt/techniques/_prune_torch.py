"""Lower pruning to torch: masks by torch.nn.utils.prune, channels by torch-pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from nbopt.data import Inputs
from nbopt.errors import MissingExtra, ModelError
from nbopt.frameworks._torch_module import call, clone, folded, tensors

Array = np.ndarray[Any, Any]
LEAST_DIMENSIONS = 2  # vectors are biases and norms: few, and each of them matters
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _prunable(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return module and attribute of every weight matrix, tied ones once; embeddings are look-ups, not products."""
    found: dict[str, tuple[nn.Module, str]] = {}
    seen: set[int] = set()
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            seen.update(id(p) for p in module.parameters(recurse=False))
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim < LEAST_DIMENSIONS or not parameter.dtype.is_floating_point or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            found[f"{prefix}.{name}" if prefix else name] = (module, name)
    return found


def prunable_weights(model: nn.Module) -> dict[str, Array]:
    """Return the weights of linear, convolution, recurrent and attention layers by name, as float32."""
    return {
        full: getattr(module, name).detach().cpu().float().numpy() for full, (module, name) in _prunable(model).items()
    }


def with_masks(
    model: nn.Module, masks: Mapping[str, Array]
) -> tuple[Callable[[nn.Module], None], Callable[[nn.Module], nn.Module]]:
    """Apply masks to a model in place.

    Returns:
        What to call after each training step, and what makes the zeros permanent and removes the masks.
    """
    places = _prunable(model)
    direct = _read_directly(model)
    held: dict[str, torch.Tensor] = {}
    for full, mask in masks.items():
        module, name = places[full]
        weight = getattr(module, name)
        tensor = torch.from_numpy(np.ascontiguousarray(mask)).to(weight.device)
        if module in direct:
            # Here a mask that is multiplied in before each call of the layer would be stale: the weights are zeroed
            # in place, and again after each step.
            held[full] = tensor
            with torch.no_grad():
                weight.mul_(tensor)
        else:
            prune.custom_from_mask(module, name, tensor)

    def hold(trained: nn.Module) -> None:
        parameters = dict(trained.named_parameters())
        with torch.no_grad():
            for full, tensor in held.items():
                parameters[full].mul_(tensor)

    def finish(trained: nn.Module) -> nn.Module:
        hold(trained)
        modules = dict(trained.named_modules())
        for full in masks:
            if full not in held:
                prefix, _, name = full.rpartition(".")
                prune.remove(modules[prefix], name)
        return trained

    return hold, finish


def _read_directly(model: nn.Module) -> set[nn.Module]:
    """Return the modules whose weights are read without calling them.

    An RNN's kernels read flattened weights; attention reads its output projection's, and a transformer layer in
    evaluation mode those of all its parts.
    """
    parts = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer)
    return {child for module in model.modules() if isinstance(module, parts) for child in module.modules()}


def remove_channels(model: nn.Module, fraction: float, example: Inputs) -> tuple[nn.Module, list[str]]:
    """Take a share of the channels out of every layer but those that make the output.

    Args:
        model: It is not changed.
        fraction: Share of each layer's channels, 0 to 1, both excluded; at least one channel stays.
        example: One row of inputs.

    Raises:
        ModelError: The dependency graph can't be traced, no layer has channels to give, or the smaller model
            does not run.
    """
    try:
        import torch_pruning  # noqa: F401 - before the model is copied
    except ImportError as error:
        raise MissingExtra("torch_pruning", "torch", "structured pruning") from error
    model = folded(clone(model))  # torch-pruning can't slice what a parametrization computes
    inputs = tensors(model, example)
    # torch-pruning 1.6.1 slices an LSTM's gates wrongly (IndexError when the smaller one runs): they keep their size.
    recurrent = [m for m in model.modules() if isinstance(m, nn.RNNBase)]
    outputs, joined = _fixed_layers(model, inputs)
    kept = [*outputs, *recurrent]
    notes = ["recurrent layers keep their size"] if recurrent else []
    attempts = [(kept, notes)]
    if joined:
        # It also takes a flattened part of a concatenation for one of another size.
        attempts.append(([*kept, *joined], [*notes, "layers that a concatenation joins keep their width"]))
    failure: Exception | None = None
    for ignored, said in attempts:
        if not _left(model, ignored):
            continue
        narrow = clone(model)
        try:
            _narrow(narrow, fraction, inputs, _same_modules(model, narrow, ignored))
        except Exception as error:  # noqa: BLE001 - torch-pruning raises what its index arithmetic happens to raise
            failure = failure or error
            continue
        if _width(narrow) < _width(model):
            return narrow, said
    if failure is not None:
        text = (str(failure).strip().splitlines() or [""])[0]
        raise ModelError(
            "a model whose layers can be made narrower",
            f"torch-pruning stopped with {type(failure).__name__}: {text}"[:300],
            "prune without --structured, or rewrite reshapes that name a fixed number of channels (flatten(1), -1)",
        ) from failure
    raise ModelError(
        "layers whose channels can be taken out",
        "none: every layer makes the output, is recurrent, or is tied to one that is",
        "prune without --structured",
    )


def _narrow(model: nn.Module, fraction: float, inputs: Inputs, ignored: list[nn.Module]) -> None:
    """Take channels out in place, and run the model once."""
    import torch_pruning

    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # torch-pruning traces the graph through autograd
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            example_inputs=inputs if isinstance(inputs, dict) else tuple(inputs),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=fraction,
            ignored_layers=ignored,
            num_heads=_heads(model),
            output_transform=_scalar,
            forward_fn=_forward,
        )
        pruner.step()
    model.zero_grad(set_to_none=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    model.eval()
    with torch.no_grad():
        call(model, inputs)


def _same_modules(model: nn.Module, twin: nn.Module, wanted: list[nn.Module]) -> list[nn.Module]:
    """Return the modules of a copy that stand where `wanted` stand in the original."""
    ids = {id(module) for module in wanted}
    pairs = zip(model.modules(), twin.modules(), strict=True)
    return [other for module, other in pairs if id(module) in ids]


def _left(model: nn.Module, ignored: list[nn.Module]) -> bool:
    """Tell whether any layer with channels is not among the ignored ones."""
    kept = {id(part) for module in ignored for part in module.modules()}
    return any(id(module) not in kept and _makes_channels(module) for module in model.modules())


def _makes_channels(module: nn.Module) -> bool:
    return any(p.ndim >= LEAST_DIMENSIONS for p in module.parameters(recurse=False))


def _forward(model: nn.Module, inputs: Any) -> Any:
    return call(model, inputs)


def _scalar(output: torch.Tensor) -> torch.Tensor:
    return output.sum()


def _width(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    return {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}


def _fixed_layers(model: nn.Module, inputs: Inputs) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the layers whose channels are the model's outputs, and those whose channels enter a concatenation.

    They are found in autograd's graph: the first weight on every path back from there to the inputs.
    """
    owners = {id(p): m for m in model.modules() for p in m.parameters(recurse=False)}
    flags = [(p, p.requires_grad) for p in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    with torch.enable_grad():
        output = call(model, inputs)
    joined: dict[int, nn.Module] = {}
    pending, seen = [output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "CatBackward0":
            joined.update(_first_weights(node, owners))
        pending += [child for child, _ in node.next_functions]
    outputs = _first_weights(output.grad_fn, owners)
    for parameter, flag in flags:
        parameter.requires_grad_(flag)
    return list(outputs.values()), [m for key, m in joined.items() if key not in outputs]


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
