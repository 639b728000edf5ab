"""Let a torch module learn from a teacher, in the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nbopt.batches import Inputs, rows_of
from nbopt.errors import ModelError
from nbopt.frameworks import Fitting
from nbopt.frameworks._primary import primary_output
from nbopt.frameworks._torch_layer_io import WHOLE, watched_io
from nbopt.frameworks._torch_losses import IGNORED, TINY
from nbopt.frameworks._torch_module import call, clone, device_of, plain, tensors
from nbopt.teaching import NEVER, Teacher
from nbopt.training import TrainingPlan

FAR = 1e4  # what a logit is lowered by to leave its class out


def layer_names(model: torch.nn.Module, inputs: Inputs) -> list[str]:
    """Return the layers whose outputs can be hints: those that are called, and give a row for each row.

    A ModuleList is never called, and a layer with the batch second gives no rows.
    """
    twin, rows = clone(model), rows_of(inputs)
    names = [name for name, _ in twin.named_modules() if name]
    with ExitStack() as stack, torch.no_grad():
        seen = _watched(twin, names, stack)
        call(twin, tensors(twin, inputs))
    return [name for name in names if name in seen and seen[name].ndim > 1 and len(seen[name]) == rows]


@contextmanager
def taught(fitting: Fitting, plan: TrainingPlan, model: torch.nn.Module) -> Iterator[Fitting]:
    """Give what a training trains against, with the plan's teacher where there is one."""
    if plan.teacher is None:
        yield fitting
        return
    with ExitStack() as stack:
        yield replace(fitting, teach=Lessons(plan.teacher, plan, model, stack))


class Lessons:
    """Blend the loss of labels with what the teacher says of the same inputs, and of inputs without labels.

    Args:
        teacher: What is taught.
        plan: Whose batch size and seed the unlabelled rows are drawn with.
        model: The student.
        stack: Takes the hooks off when the training is over.
    """

    def __init__(self, teacher: Teacher, plan: TrainingPlan, model: torch.nn.Module, stack: ExitStack) -> None:
        self.teacher, self.device = teacher, device_of(model)
        self.own = _watched(model, [student for _, student in teacher.hints], stack)
        self.theirs: dict[str, torch.Tensor] = {}
        if teacher.model is not None:
            self.model = plain(teacher.model)  # what torch.compile wraps has other names, and calls no hooks
            self.theirs = _watched(self.model, [name for name, _ in teacher.hints], stack)
            self.io = [
                watched_io(each, paths, stack, self.device)
                for each, paths in zip((model, self.model), teacher.reads, strict=True)
            ]
        self.loss = None if teacher.loss is None else loss_on(teacher.loss, self.device)
        self.extra = None if teacher.extra is None else _without_end(teacher, plan)

    def __call__(
        self,
        loss: torch.Tensor,
        forward: Callable[[Inputs], torch.Tensor],
        inputs: Inputs,
        output: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the loss with the teacher's part in it.

        Args:
            loss: Of the labels.
            forward: Gives the student's output in training mode, for unlabelled rows.
            inputs: What the student saw, mixed where rows were mixed: the teacher judges the same (Beyer et al.
                2022, https://arxiv.org/abs/2106.05237).
            output: What the student gave.
            target: Labels.
            weight: Row weights, or None.
        """
        teacher = self.teacher
        soft = self._soft(output, inputs, target, weight)
        hinted = self._hints(inputs) if teacher.hints else None
        if self.extra is not None:
            rows = next(self.extra)
            more = self._soft(forward(rows), rows, None, None)
            here, there = rows_of(inputs), rows_of(rows)
            soft = (here * soft + there * more) / (here + there)
        total = (1 - teacher.alpha) * loss + teacher.alpha * soft
        return total if hinted is None else total + teacher.hint_weight * hinted

    def _soft(
        self, output: torch.Tensor, inputs: Inputs, target: torch.Tensor | None, weight: torch.Tensor | None
    ) -> torch.Tensor:
        taught_now = torch.from_numpy(np.ascontiguousarray(self.teacher.outputs(inputs))).to(self.device)
        if self.loss is None:
            return soft_loss(self.teacher, output, taught_now, target, weight)
        if self.teacher.reads[1]:
            with torch.no_grad():
                call(self.model, tensors(self.model, inputs))
        student = normal_output(output.float(), self.teacher)
        own, theirs = (
            {**io, WHOLE: {"output": whole}}
            for io, whole in zip(self.io, (student, taught_now.reshape(student.shape)), strict=True)
        )
        value: torch.Tensor = self.loss(own, theirs, target)
        return value

    def _hints(self, inputs: Inputs) -> torch.Tensor:
        teacher = self.teacher
        with torch.no_grad():
            call(self.model, tensors(self.model, inputs))
        losses = [hint_loss(self.own[own], self.theirs[theirs].to(self.device)) for theirs, own in teacher.hints]
        return torch.stack(losses).mean()


def loss_on(loss: Any, device: torch.device) -> Any:
    """Return a copy of a loss on a device; one that is no module has nothing to move."""
    return deepcopy(loss).to(device) if isinstance(loss, torch.nn.Module) else loss


def soft_loss(
    teacher: Teacher,
    output: torch.Tensor,
    taught_now: torch.Tensor,
    target: torch.Tensor | None,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    """Return how far the student's outputs are from the teacher's, with the square of the temperature.

    Args:
        teacher: How it is taught.
        output: The student's output, of `teacher.kind`.
        taught_now: The teacher's, in normal form.
        target: Labels: those of padding are left out, and "decoupled" needs them; None for unlabelled rows.
        weight: Row weights, or None.
    """
    student, t = normal_output(output.float(), teacher), teacher.temperature
    taught_now = taught_now.reshape(student.shape)
    if teacher.family == "values":
        return _mean((student - taught_now) ** 2, weight, None)
    if teacher.family == "labels":
        sure = torch.sigmoid(taught_now / t)
        rows = functional.binary_cross_entropy_with_logits(student / t, sure, reduction="none")
        rows = rows - functional.binary_cross_entropy_with_logits(taught_now / t, sure, reduction="none")
        return t * t * _mean(rows, weight, None)
    places = student.shape[:-1]
    # Class numbers come in whatever dtype, as one column too; else there is a column for each class.
    numbers = target.reshape(places).long() if target is not None and target.numel() == places.numel() else None
    counted = None if numbers is None else numbers != IGNORED
    if teacher.method == "decoupled" and target is not None:
        classes = target.argmax(-1) if numbers is None else numbers.clamp_min(0)
        rows = _decoupled(student / t, taught_now / t, classes.reshape(places), teacher.beta)
    else:
        rows = _divergence(student / t, taught_now / t)
    return t * t * _mean(rows, weight, counted)


def normal_output(output: torch.Tensor, teacher: Teacher) -> torch.Tensor:
    """Return the student's output in normal form, with gradients; logits stay logits."""
    values = output.movedim(teacher.axis, -1) if teacher.axis != -1 else output
    if teacher.kind == "probabilities":
        return values.clamp_min(TINY).log()
    if teacher.kind.endswith("_probabilities") and teacher.family == "labels":
        clipped = values.clamp(TINY, 1 - TINY)
        return clipped.log() - (1 - clipped).log()
    return values if teacher.family == "values" else values.clamp_min(NEVER)


def _divergence(student: torch.Tensor, taught_now: torch.Tensor) -> torch.Tensor:
    """Return KL(teacher || student) over the last axis, from logits."""
    ours, theirs = functional.log_softmax(student, -1), functional.log_softmax(taught_now, -1)
    return functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def _decoupled(student: torch.Tensor, taught_now: torch.Tensor, classes: torch.Tensor, beta: float) -> torch.Tensor:
    """Return the divergence on whether it is the label's class, plus `beta` times that among the other classes."""
    own = functional.one_hot(classes, student.shape[-1]).bool()

    def whether(logits: torch.Tensor) -> torch.Tensor:
        yes = functional.log_softmax(logits, -1).masked_select(own).reshape(classes.shape)
        rest = functional.log_softmax(logits, -1).masked_fill(own, -torch.inf).logsumexp(-1)
        return torch.stack([yes, rest], -1)

    def others(logits: torch.Tensor) -> torch.Tensor:
        return logits - FAR * own

    return _divergence(whether(student), whether(taught_now)) + beta * _divergence(others(student), others(taught_now))


def _mean(rows: torch.Tensor, weight: torch.Tensor | None, counted: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over rows and places, of the places that count, by the rows' weights."""
    counts = torch.ones_like(rows) if counted is None else counted.to(rows.dtype)
    if weight is not None:
        # A row's weight is shared by its places, as in the loss of labels.
        flat = counts.reshape(len(counts), -1)
        shares = flat / flat.sum(1, keepdim=True).clamp_min(1)
        counts = (shares * weight.reshape(-1, 1).to(rows.dtype)).reshape(rows.shape)
    return (rows * counts).sum() / counts.sum().clamp_min(TINY)


def hint_loss(own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Return how far the outputs of two layers are apart.

    Of one shape: the mean square of the difference over that of the teacher's (Romero et al. 2015,
    https://arxiv.org/abs/1412.6550). Of two: how alike the rows of a batch are to each other in the one and in the
    other (Tung & Mori 2019, https://arxiv.org/abs/1907.09682), which needs no extra layer that maps widths.
    """
    own, theirs = own.float().flatten(1), theirs.float().flatten(1)
    if own.shape == theirs.shape:
        return ((own - theirs) ** 2).mean() / (theirs**2).mean().clamp_min(TINY)
    gram_own, gram_theirs = (functional.normalize(each @ each.T, dim=1) for each in (own, theirs))
    return ((gram_own - gram_theirs) ** 2).sum(1).mean()


def _watched(model: torch.nn.Module, names: list[str], stack: ExitStack) -> dict[str, torch.Tensor]:
    """Return the outputs of layers, renewed with each call of the model."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
            with suppress(ModelError):  # of a layer that gives no tensor nothing is kept
                seen[name] = primary_output(output)

        return hook

    modules = dict(model.named_modules())
    for name in dict.fromkeys(names):
        stack.callback(modules[name].register_forward_hook(keep(name)).remove)
    return seen


def _without_end(teacher: Teacher, plan: TrainingPlan) -> Iterator[Inputs]:
    assert teacher.extra is not None
    rng = np.random.default_rng(plan.seed + 1)
    while True:
        for batch in teacher.extra.training_batches(plan.batch_size, rng):
            yield batch.inputs
