"""Make single training steps of a torch module, to be timed before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from nbopt.errors import DataError
from nbopt.frameworks import Fitting, Stepping, no_half
from nbopt.frameworks._sharing import shares
from nbopt.frameworks._torch_fit import step_loss
from nbopt.frameworks._torch_module import clone, device_of
from nbopt.frameworks._torch_precision import Precision
from nbopt.frameworks._torch_schedules import Rates, make_optimizer
from nbopt.training import TrainingPlan


def stepping(model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> Stepping:
    """Return what makes one step of a plan at a time, on a copy and on the first batch, or one process's share of it.

    Raises:
        DataError: There is no batch, or its labels don't go with the loss.
        ModelError: The model can't be copied, has nothing that trains, or can't compute in the plan's half precision.
    """
    twin = clone(model).train()
    optimizer, precision = make_optimizer(plan, twin), Precision(plan, twin)
    Rates(plan, optimizer, fitting.split.steps(plan.batch_size)).to_train()
    batch = next(iter(fitting.split.training_batches(plan.batch_size, np.random.default_rng(plan.seed))), None)
    if batch is None:
        raise DataError("a batch of train", "none")
    batch = batch if plan.devices == 1 else shares(batch, plan.devices)[0]
    cuda = torch.device(device_of(twin)).type == "cuda"

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        precision.step(step_loss(fitting, twin, batch, precision), optimizer)
        if cuda:
            torch.cuda.synchronize()

    def memory() -> int:
        optimizer.zero_grad(set_to_none=True)
        if not cuda:
            return _kept_for_backward(twin, lambda: step_loss(fitting, twin, batch, precision))
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return int(torch.cuda.max_memory_allocated() - before)

    if precision.dtype is not None:
        try:
            step()
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            raise no_half(plan, error) from error
    words = "peak of a step beside the weights" if cuda else "kept for the backward pass of a step"
    return Stepping(step, memory, words)


def _kept_for_backward(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, the weights left out.

    torch counts no memory on a CPU, and that of the process says little: what was freed stays with the allocator.
    What autograd keeps is exact, and it is what half precision makes smaller.
    """
    weights = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
        if storage is not None and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()  # held until all is counted, so that no address is used twice
    del loss
    return sum(kept.values())
