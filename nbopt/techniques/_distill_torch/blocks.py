"""Leave out blocks of a torch module's stacks: layers of a transformer, residual blocks that keep their shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from nbopt.draft import Context
from nbopt.errors import ModelError, NbOptError, OptionError
from nbopt.frameworks._primary import primary_output
from nbopt.techniques._distill.blocks import kept_blocks


def shallower(model: nn.Module, share: float, context: Context) -> tuple[nn.Module, str]:
    """Return a copy with a share of the blocks of each stack, evenly spread, and what went in words.

    A block may go where what it gives has the shape of what it is given, as a residual block's does, and where at
    least one other of its stack is of the same class, shape and size.

    Raises:
        ModelError: There is no such stack, or the model does not run without its blocks.
        OptionError: So large a share of each stack is all of its blocks.
    """
    framework = context.workload.framework
    twin = framework.clone(model)
    inputs = context.two_rows
    wanted = framework.predict(twin, inputs).shape
    gone: list[str] = []
    most = 0
    for name, stack in [(n, m) for n, m in twin.named_modules() if isinstance(m, (nn.ModuleList, nn.Sequential))]:
        groups = _alike(stack, lambda: framework.predict(twin, inputs))
        most = max([most, *map(len, groups)])
        going = {index for group in groups for index in set(group) - set(kept_blocks(group, share))}
        if not going:
            continue
        left = [block for index, block in enumerate(stack) if index not in going]
        # Its content is replaced, not itself: a subclass may have a forward of its own.
        stack._modules.clear()
        for index, block in enumerate(left):
            stack.add_module(str(index), block)
        gone.append(f"{len(going)} of {len(going) + len(left)} blocks of {name or 'the model'}")
    if most and not gone:
        raise OptionError(
            f"a --depth of which at least one of {most} blocks goes", f"{share:g}", f"--depth {1 - 1 / most:.2g}"
        )
    if not gone:
        raise ModelError(
            "a stack of blocks that can be left out (nn.ModuleList or nn.Sequential of blocks of one class and shape)",
            f"{type(model).__name__}, which has none",
            "leave --depth out, or --student with a shallower model of your own",
        )
    try:
        came = framework.predict(twin, inputs).shape
    except (NbOptError, RuntimeError, IndexError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelError(
            "a model that runs without some of its blocks",
            f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            "leave --depth out, or --student with a shallower model of your own",
        ) from error
    if came != wanted:
        raise ModelError(
            f"outputs of shape {wanted} without some blocks",
            f"shape {came}",
            "leave --depth out, or --student with a shallower model of your own",
        )
    return twin, f"left out: {', '.join(gone)}"


def _alike(stack: Any, run: Callable[[], Any]) -> list[list[int]]:
    """Return the places of blocks that could stand for each other, in groups of two and more."""
    seen: dict[int, tuple[Any, ...]] = {}

    def watch(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = next((x for x in (*args, *kwargs.values()) if hasattr(x, "shape")), None)
            shape = tuple(getattr(given, "shape", ()))
            try:
                same = shape == tuple(primary_output(output).shape)
            except ModelError:
                same = False
            if same:
                seen[index] = shape

        return hook

    # A block has parts of its own: single layers of one class in a row are no residual blocks.
    blocks = [(i, block) for i, block in enumerate(stack) if list(block.children()) and list(block.parameters())]
    if len(blocks) < 2:
        return []
    handles = [block.register_forward_hook(watch(i), with_kwargs=True) for i, block in blocks]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, block in blocks:
        if index in seen:
            sizes = tuple(tuple(p.shape) for p in block.parameters())
            groups.setdefault((type(block), seen[index], sizes), []).append(index)
    return [group for group in groups.values() if len(group) > 1]
