"""What the processes of one torch training do together; a training in one process does it alone."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch

from nbopt.batches import Batch
from nbopt.data import Split
from nbopt.frameworks import Fitting
from nbopt.frameworks._sharing import Share
from nbopt.frameworks._torch_module import state_of
from nbopt.frameworks._torch_norms import NORMS
from nbopt.frameworks._watching import Watch
from nbopt.training import TrainingPlan


class Crew:
    """Be the one process of a training.

    Attributes:
        alone: No other process waits for this one's part of a step, so that it may leave one out.
    """

    alone: ClassVar[bool] = True

    def watch(
        self, plan: TrainingPlan, fitting: Fitting, state: Callable[[], Any], loss_on: Callable[[Split], float]
    ) -> Watch:
        """Return what judges the model after each epoch."""
        return Watch(plan, fitting, state, loss_on)

    def called(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return what is called in a training step, so that gradients are those of all processes."""
        return model

    def part(self, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return what this process adds to the mean over all of them."""
        return loss

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes."""
        return value


class Member(Crew):
    """Be one of several processes, each with its share of every batch.

    Args:
        accelerator: Has placed the model, and reduces over processes.
        wrapped: The model as Accelerate wraps it: its backward pass averages gradients over processes.
        incoming: What the kernel sends.
        send: Tells the kernel.
    """

    alone: ClassVar[bool] = False

    def __init__(
        self, accelerator: Any, wrapped: torch.nn.Module, incoming: queue.Queue[Any], send: Callable[[str, Any], None]
    ) -> None:
        self.accelerator, self.wrapped, self.incoming, self.send = accelerator, wrapped, incoming, send

    def watch(
        self, plan: TrainingPlan, fitting: Fitting, state: Callable[[], Any], loss_on: Callable[[Split], float]
    ) -> Watch:
        """Return what asks the kernel."""
        return Asking(plan, fitting, state, loss_on, self)

    def called(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the wrapped model."""
        return self.wrapped

    def part(self, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss by its factor."""
        return loss * batch.factor if isinstance(batch, Share) else loss

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes."""
        tensor = torch.tensor(value, dtype=torch.float32, device=self.accelerator.device)
        return float(self.accelerator.reduce(tensor, "mean"))


class Asking(Watch):
    """Let the kernel judge: it has the validation rows, and one decision holds for all processes.

    Args:
        plan: As of a `Watch`.
        fitting: As of a `Watch`; it scores nothing here.
        state: As of a `Watch`.
        loss_on: As of a `Watch`.
        member: This process.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        fitting: Fitting,
        state: Callable[[], Any],
        loss_on: Callable[[Split], float],
        member: Member,
    ) -> None:
        super().__init__(plan, fitting, state, loss_on)
        self._member = member
        self._value: float | None = None

    def look(self, model: Any, epoch: int, *, done: float) -> str:
        """Bring the model to the kernel; return why training shall end, or ""."""
        if not epoch:
            return ""  # the kernel has judged it before it sent it
        average_norms(model, self._member.accelerator)
        if self._member.accelerator.is_main_process:
            state = state_of(model)
            self._member.send("judge", {n: v.cpu() if isinstance(v, torch.Tensor) else v for n, v in state.items()})
        why, self._value = self._member.incoming.get()
        return why

    @property
    def value(self) -> float | None:
        """Return the figure that "plateau" follows, as the kernel found it."""
        return self._value


def average_norms(model: torch.nn.Module, accelerator: Any) -> None:
    """Give all processes the mean of their BatchNorm statistics, in place.

    Each normalises by its own rows, as DistributedDataParallel does. torch's SyncBatchNorm would take those of all, but
    runs on GPUs alone, and by other layers than the user's, whose hooks would be lost.
    """
    for norm in model.modules():
        if isinstance(norm, NORMS) and norm.running_mean is not None and norm.running_var is not None:
            for statistic in (norm.running_mean, norm.running_var):
                statistic.copy_(accelerator.reduce(statistic, "mean"))


class Fed:
    """Be a split whose batches the kernel sends.

    Args:
        incoming: Has them, and None at the end of each epoch.
        steps: How many an epoch has, None where the data does not tell.
    """

    def __init__(self, incoming: queue.Queue[Any], steps: int | None) -> None:
        self.incoming, self.steps = incoming, steps

    def __iter__(self) -> Iterator[Share]:
        return iter(self.incoming.get, None)

    def __len__(self) -> int:
        if self.steps is None:
            raise TypeError("the data does not tell how many batches it has")
        return self.steps
