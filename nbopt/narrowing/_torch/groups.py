"""Read torch-pruning's dependency graph: which units leave together, and every weight that holds them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.batches import Inputs
from nbopt.errors import MissingExtra, ModelError
from nbopt.frameworks._torch_module import called, clone
from nbopt.narrowing._torch import recurrent
from nbopt.narrowing._torch.attention import heads_of
from nbopt.narrowing._torch.edges import output_layers, traced_outputs
from nbopt.narrowing._torch.following import Endless, watched, without_cache
from nbopt.narrowing.widths import Cut, Width

Array = np.ndarray[Any, Any]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
VECTORS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)


class _NotFollowed(Exception):
    """A group holds a layer that can't be sliced; the message says which."""


def find_widths(model: nn.Module, inputs: Inputs) -> tuple[list[Width], list[str]]:
    """Return what can be made narrower, and what must be said of the rest.

    Raises:
        ModelError: The dependency graph can't be traced.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtra("torch_pruning", "torch", "structured pruning") from error
    failure: Exception | None = None
    # A recurrent layer's stand-in may itself be what can't be followed: then the layer keeps its size.
    for follow in (True, False):
        traced, notes = _with_stand_ins(clone(model), follow=follow)
        without_cache(traced)
        try:
            graph = _graph(torch_pruning, traced, inputs)
        except Exception as error:  # noqa: BLE001 - it raises what its index arithmetic happens to raise
            failure = failure or error
            continue
        widths = _widths(graph, traced, inputs, notes)
        if widths or not follow:
            return _unique(widths), list(dict.fromkeys(notes))
    raise ModelError(
        "a model whose layers can be made narrower",
        f"torch-pruning stopped with {type(failure).__name__}: {first_line(failure)}",
        "prune without --structured, or rewrite reshapes that name a fixed number of channels (flatten(1), -1)",
    ) from failure


def _graph(torch_pruning: Any, model: nn.Module, inputs: Inputs) -> Any:
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # torch-pruning traces the graph through autograd
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        return torch_pruning.DependencyGraph().build_dependency(
            model,
            example_inputs=inputs if isinstance(inputs, dict) else tuple(inputs),
            forward_fn=called,
            # All of them: what only another output takes in must shrink too, or `forward` stops there.
            output_transform=lambda result: [output.sum() for output in traced_outputs(result)],
        )


def _widths(graph: Any, model: nn.Module, inputs: Inputs, notes: list[str]) -> list[Width]:
    """Return every group of the graph as a width; add what must be said to `notes`."""
    names = {module: name for name, module in model.named_modules()}
    tied = _tied(model)
    if tied:
        notes.append(f"{listed([names[module] for module in tied])} keep their width: their weights are tied")
    kept = {*output_layers(model, inputs), *tied}
    kept |= {module.line for module in model.modules() if isinstance(module, recurrent.StandIn) and module.whole}
    kept |= {
        part for module in model.modules() if isinstance(module, nn.MultiheadAttention) for part in module.modules()
    }
    widths: list[Width] = []
    visited: set[nn.Module] = set()
    endless: dict[type, str] = {}
    for module in list(graph.module2node):
        if not isinstance(module, (*CONVOLUTIONS, nn.Linear)) or module in visited or module in kept:
            continue
        parent = _parent(module, names)
        if type(parent) in endless and parent is not model:
            continue
        pruner = graph.get_pruner_of_module(module)
        try:
            with watched(len(graph.module2node)):
                group = graph.get_pruning_group(
                    module, pruner.prune_out_channels, range(pruner.get_out_channels(module))
                )
        except Endless:
            # So is that of each layer like it, and to find that out again takes as long again.
            endless[type(parent)] = _name(module, names)
            continue
        except Exception as error:  # noqa: BLE001 - as above
            notes.append(f"{_name(module, names)} keeps its width: torch-pruning stopped ({first_line(error)})")
            continue
        made = {dep.target.module for dep, _ in group.items if graph.is_out_channel_pruning_fn(dep.handler)}
        visited |= made
        if made & kept:
            continue
        try:
            widths.append(_width(graph, group, names, tied))
        except _NotFollowed as reason:
            notes.append(str(reason))
    notes += [
        f"{name}, and others in {kind.__name__}, keep their width: torch-pruning finds no end to what belongs to it"
        for kind, name in endless.items()
    ]
    return widths


def _with_stand_ins(model: nn.Module, *, follow: bool) -> tuple[nn.Module, list[str]]:
    """Return the model with its recurrent layers replaced by what the graph can follow, and notes on those left."""
    notes = []
    for prefix, module in list(model.named_modules()):
        for name, child in module.named_children():
            if not isinstance(child, nn.RNNBase):
                continue
            full = f"{prefix}.{name}" if prefix else name
            whole = bool(child.proj_size) or not follow
            if whole:
                reason = "it projects its state" if child.proj_size else "its state can't be followed"
                notes.append(f"{full} keeps its size: {reason}")
            setattr(module, name, recurrent.StandIn(child, whole=whole))
    return model, notes


def _tied(model: nn.Module) -> list[nn.Module]:
    """Return the modules that share a weight with another one."""
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    return [module for several in owners.values() if len(several) > 1 for module in several]


def _width(graph: Any, group: Any, names: dict[nn.Module, str], tied: Sequence[nn.Module]) -> Width:
    """Return a group as a width.

    Raises:
        _NotFollowed: It holds something that can't be sliced.
    """
    size = len(group[0].idxs)
    root = group[0].dep.target.module
    cuts: list[Cut] = []
    makers: list[str] = []
    lines: list[nn.Linear] = []
    labels = np.arange(size)
    normed = False
    kind = "channels"
    for item in list(group):
        dep, idxs = item[0], item[1]
        module = dep.target.module
        if type(module).__module__.startswith("torch_pruning"):
            continue  # an addition, a reshape: nothing is stored there
        root_idxs = item.root_idxs
        if any(index is None for index in root_idxs):
            raise _NotFollowed(f"{_name(root, names)} keeps its width: it can't be followed through a reshape")
        out = graph.is_out_channel_pruning_fn(dep.handler)
        if isinstance(module, nn.Parameter):
            found = graph._param_to_name[module]
            axis = dep.target.pruning_dim % module.dim()
            cuts.append(Cut(found, axis, _placed(module.shape[axis], idxs, root_idxs)))
            continue
        name = _name(module, names)
        if module in tied:
            raise _NotFollowed(f"{_name(root, names)} keeps its width: the weights of {name} after it are tied")
        owner = _stand_in(module, names)
        if owner is not None:
            kind = "units" if out else kind
            layer = owner.layer[0]
            if out:
                makers.append(name)
                units = _placed(module.out_features, idxs, root_idxs)
                if layer.bidirectional:
                    half = layer.hidden_size
                    labels = _merged(labels, np.stack([units[:half], units[half:]], 1))
                cuts += recurrent.cuts_made(name, layer, units[: layer.hidden_size])
            else:
                cuts += recurrent.cuts_taken(name, layer, _placed(module.in_features, idxs, root_idxs))
            continue
        if out and size > 1 and _gives_one(module):
            continue  # one number for all units, as attention over steps has it: no unit, though a product joins it
        made = _cuts(name, module, idxs, root_idxs, out=out)
        cuts += made
        if out and isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            makers.append(name)
        if out and isinstance(module, nn.Linear):
            lines.append(module)
        normed = (
            normed or isinstance(module, nn.LayerNorm) or (isinstance(module, nn.GroupNorm) and module.num_groups == 1)
        )
    labels = _merged(labels, np.array(sorted(group.together), dtype=np.int64).reshape(-1, 2))
    heads = _heads(lines, makers, names, size)
    if heads:
        labels = _merged(labels, labels.reshape(heads, -1))
        kind = "heads"
    relabelled, units = np.unique(labels, return_inverse=True)
    table = np.append(units, -1)  # the last for -1
    cuts = [Cut(cut.weight, cut.axis, table[cut.units]) for cut in cuts]
    order = list(names.values())  # as the model lists them: a group may be found from any of its layers
    makers.sort(key=order.index)
    first = makers[0] if makers else _name(root, names)
    return Width(first, tuple(dict.fromkeys(makers)) or (first,), len(relabelled), tuple(cuts), (), kind, normed)


def _cuts(name: str, module: nn.Module, idxs: list[int], root_idxs: list[int], *, out: bool) -> list[Cut]:
    bias = [f"{name}.bias"] if getattr(module, "bias", None) is not None else []

    def vector(count: int, weights: Iterable[str]) -> list[Cut]:
        units = _placed(count, idxs, root_idxs)
        return [Cut(weight, 0, units) for weight in weights]

    if isinstance(module, CONVOLUTIONS):
        transposed = module.transposed
        if module.groups > 1:
            if not module.groups == module.in_channels == module.out_channels:
                raise _NotFollowed(f"{name} keeps its width, and so do its neighbours: its channels are in groups")
            return vector(module.out_channels, [f"{name}.weight", *bias])
        if out:
            units = _placed(module.out_channels, idxs, root_idxs)
            return [Cut(f"{name}.weight", 1 if transposed else 0, units), *(Cut(each, 0, units) for each in bias)]
        return [Cut(f"{name}.weight", 0 if transposed else 1, _placed(module.in_channels, idxs, root_idxs))]
    if isinstance(module, nn.Linear):
        if out:
            return vector(module.out_features, [f"{name}.weight", *bias])
        return [Cut(f"{name}.weight", 1, _placed(module.in_features, idxs, root_idxs))]
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return [Cut(f"{name}.weight", 1, _placed(module.embedding_dim, idxs, root_idxs))]
    if isinstance(module, nn.GroupNorm) and module.num_groups not in (1, module.num_channels):
        raise _NotFollowed(f"{name} keeps its width, and so do its neighbours: it normalizes channels in groups")
    if isinstance(module, VECTORS):
        held = [*dict(module.named_parameters(recurse=False)), *dict(module.named_buffers(recurse=False))]
        whole = [each for each in held if getattr(module, each).dim() == 1 and len(getattr(module, each)) > 1]
        return vector(len(getattr(module, whole[0])), [f"{name}.{each}" for each in whole]) if whole else []
    if any(True for _ in module.parameters(recurse=False)):
        raise _NotFollowed(
            f"{name} keeps its width, and so do its neighbours: nothing is known of {type(module).__name__}"
        )
    return []


def _heads(lines: list[nn.Linear], makers: list[str], names: dict[nn.Module, str], size: int) -> int:
    """Return the number of heads where the group is what one attention projects its inputs to, else 0."""
    parents = {name.rpartition(".")[0] for name in makers}
    if len(lines) < 2 or len(parents) != 1 or len(makers) != len(lines):  # DeBERTa projects positions too: five
        return 0
    modules = {name: module for module, name in names.items()}
    heads = heads_of(modules[next(iter(parents))])
    return heads if heads and size % heads == 0 else 0


def _gives_one(module: nn.Module) -> bool:
    return 1 in (getattr(module, "out_features", 0), getattr(module, "out_channels", 0))


def _placed(length: int, idxs: list[int], root_idxs: list[int]) -> Array:
    if max(idxs, default=0) >= length:
        # torch-pruning 1.6.1 takes a flattened part of a concatenation for one of another size.
        raise _NotFollowed("layers that a concatenation joins keep their width, where one of its parts was flattened")
    units = np.full(length, -1, dtype=np.int64)
    units[np.asarray(idxs, dtype=np.int64)] = root_idxs
    return units


def _merged(labels: Array, together: Array) -> Array:
    """Return labels after the positions in each row of `together` were given one label."""
    labels = labels.copy()
    for row in together.tolist():
        present = [labels[index] for index in row if index >= 0]
        if present:
            labels[np.isin(labels, present)] = min(present)
    return labels


def _stand_in(module: nn.Module, names: dict[nn.Module, str]) -> recurrent.StandIn | None:
    """Return the stand-in whose line this is."""
    name = names.get(module, "")
    if not name.endswith("line"):
        return None
    parent = name.rpartition(".")[0]
    owner = next((each for each, own in names.items() if own == parent), None)
    return owner if isinstance(owner, recurrent.StandIn) else None


def _parent(module: nn.Module, names: dict[nn.Module, str]) -> nn.Module | None:
    parent = names[module].rpartition(".")[0]
    return next((each for each, own in names.items() if own == parent), None)


def _name(module: nn.Module, names: dict[nn.Module, str]) -> str:
    """Return a module's name; a stand-in's line goes by the name of the layer that it stands for."""
    return names[module].rpartition(".")[0] if _stand_in(module, names) is not None else names[module]


def _unique(widths: list[Width]) -> list[Width]:
    """Return the widths, each under a name of its own."""
    seen: dict[str, int] = {}
    result = []
    for width in widths:
        seen[width.name] = seen.get(width.name, 0) + 1
        number = seen[width.name]
        name = width.name if number == 1 else f"{width.name}#{number}"
        result.append(Width(name, width.layers, width.size, width.cuts, width.makers, width.kind, width.normed))
    return result


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def first_line(error: Exception | None) -> str:
    """Return an error's first line, cut."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
