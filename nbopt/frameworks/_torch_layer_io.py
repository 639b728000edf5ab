"""Let a loss read what goes into layers and comes out of them by their paths, as the losses of torchdistill do.

torchdistill (Matsubara 2021, https://arxiv.org/abs/2011.12913) hooks the layers that a configuration names, and calls a
loss with `student_io, teacher_io, targets`, where `student_io["block.1"]["output"]` is a tensor and "." is the model
itself. Here the layers are those that the loss is seen to read, so that there is nothing to configure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import Any

import torch

from nbopt.batches import Inputs
from nbopt.errors import ModelError, OptionError, nearest
from nbopt.frameworks._primary import primary_output
from nbopt.frameworks._torch_module import call, clone, device_of, tensors

WHOLE = "."
"""The path of the model itself: its output is that in normal form, logits or values."""

LayerIO = dict[str, dict[str, torch.Tensor]]


def watched_io(model: torch.nn.Module, paths: Iterable[str], stack: ExitStack, device: torch.device) -> LayerIO:
    """Return what goes into layers and comes out of them, on a device, renewed with each call of the model."""
    seen: LayerIO = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = next((each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)), None)
            own = {} if given is None else {"input": given}
            with suppress(ModelError):  # of a layer that gives no tensor nothing is kept
                own["output"] = primary_output(output)
            # Under autocast the student's are halves and the teacher's are not.
            seen[path] = {
                name: (each.float() if each.dtype in (torch.float16, torch.bfloat16) else each).to(device)
                for name, each in own.items()
            }

        return hook

    modules = dict(model.named_modules())
    for path in paths:
        stack.callback(modules[path].register_forward_hook(keep(path), with_kwargs=True).remove)
    return seen


class _Noted(dict[str, Any]):
    """Note which paths are asked for."""

    def __init__(self, seen: LayerIO, role: str) -> None:
        super().__init__(seen)
        self.role, self.read = role, dict[str, None]()

    def __getitem__(self, path: str) -> Any:
        if path not in self:
            raise OptionError(
                f"distill --loss that reads layers of the {self.role} which are called, or {WHOLE!r}",
                repr(path),
                nearest(path, list(self)),
            )
        self.read[path] = None
        return super().__getitem__(path)


def paths_read(
    loss: Any,
    models: tuple[torch.nn.Module, torch.nn.Module],
    outputs: tuple[torch.Tensor, torch.Tensor],
    inputs: Inputs,
    target: torch.Tensor | None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers of student and teacher that a loss reads, the models themselves left out, by trying it.

    Args:
        loss: It is not changed.
        models: Student and teacher.
        outputs: Theirs, in normal form.
        inputs: Of some rows.
        target: Of those rows, None where there is none.

    Raises:
        ModelError: It does not run on what these models give.
        OptionError: It reads a layer that is not there.
    """
    roles = ("student", "teacher")
    with ExitStack() as stack:
        noted = []
        for model, output, role in zip(models, outputs, roles, strict=True):
            twin = clone(model)
            every = [name for name, _ in twin.named_modules() if name]
            seen = watched_io(twin, every, stack, device_of(models[0]))
            with torch.no_grad():
                call(twin, tensors(twin, inputs))
            noted.append(_Noted({**seen, WHOLE: {"output": output}}, role))
        try:
            value = loss(noted[0], noted[1], target)
        except OptionError:
            raise
        except Exception as error:
            # Whatever the loss raises, of shapes, keys or types: it is passed on with what to look at.
            raise ModelError(
                "a --loss that runs on outputs of these layers of student and teacher: "
                f"{', '.join(noted[0].read) or 'none'}; {', '.join(noted[1].read) or 'none'}",
                f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                "other layers, or another loss",
            ) from error
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ModelError("a --loss that gives one number", f"a {type(value).__name__}", "a reduction to the mean")
    student, teacher = (tuple(path for path in each.read if path != WHOLE) for each in noted)
    return student, teacher
