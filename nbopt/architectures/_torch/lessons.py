"""Let the candidates of a torch module learn from the whole of it, in the one training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn

from nbopt.architectures.factors import Factor, Factors
from nbopt.architectures.sandwich import Pace, Sandwich
from nbopt.arrays import to_numpy
from nbopt.batches import Batch, Inputs
from nbopt.frameworks._primary import primary_output
from nbopt.frameworks._torch_module import device_of, invoke, takes_whole, tensors
from nbopt.frameworks._torch_norms import NORMS
from nbopt.frameworks._torch_teaching import normal_output, soft_loss
from nbopt.teaching import Teacher

Array = np.ndarray[Any, Any]


class Shared:
    """Compute candidates of a module with its own weights.

    The module is called with other tensors in the place of its weights, so that their gradients reach its own, and
    with copies of its buffers, so that a candidate leaves no trace in BatchNorm's statistics.

    Args:
        model: The whole module.
        factors: Its candidates.
    """

    def __init__(self, model: nn.Module, factors: Factors) -> None:
        self.model, self.factors = model, factors
        device = device_of(model)
        self._lines = {
            name: [(factor, torch.from_numpy(factor.lines).to(device)) for factor in each]
            for name, each in factors.of.items()
        }

    def weights(self, shares: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the module's weights times the factors of a mixture, with gradients to both.

        Args:
            shares: For each choice the share of each option.
        """
        own = dict(self.model.named_parameters())
        found = {}
        for name, lines in self._lines.items():
            value: torch.Tensor = own[name]
            for factor, line in lines:
                value = value * _shaped(factor, shares[factor.choice] @ line).to(value.dtype)
            found[name] = value
        return found

    def call(self, inputs: Inputs, weights: Mapping[str, torch.Tensor], gates: Mapping[str, Any]) -> torch.Tensor:
        """Return the primary output with other weights, and with some blocks left out or weighed.

        Args:
            inputs: Tensors.
            weights: What takes the place of weights, by name.
            gates: How much of a block counts, 0 to 1; what is left of it is what the block was given.
        """
        values = {**dict(weights), **{name: buffer.clone() for name, buffer in self.model.named_buffers()}}
        whole = takes_whole(self.model, inputs if isinstance(inputs, dict) else len(inputs))

        def model(*positions: Any, **named: Any) -> Any:
            return torch.func.functional_call(self.model, values, positions, named)

        with self._gated(gates):
            return primary_output(invoke(model, inputs, whole=whole))

    def _gated(self, gates: Mapping[str, Any]) -> AbstractContextManager[Any]:
        stack = ExitStack()

        def gate(share: Any) -> Callable[..., Any]:
            def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
                if isinstance(share, float) and share == 0.0:
                    return args[0]
                return share * output + (1 - share) * args[0]

            return hook

        for name, share in gates.items():
            if isinstance(share, float) and share == 1.0:
                continue
            stack.callback(self.model.get_submodule(name).register_forward_hook(gate(share)).remove)
        return stack


class Lessons:
    """Be `Fitting.teach`: let candidates of each step learn what the whole module says, and leave its own loss alone.

    A candidate goes backward as soon as it was computed: with all of them kept for the end, a step would hold the
    activations of four models. Gradients add up in the weights, as if it had been one loss.

    Args:
        shared: The module and its candidates.
        sandwich: Which candidates each step computes.
        teacher: Kind and axis of the output.
        pace: How much of the training is done.
    """

    def __init__(self, shared: Shared, sandwich: Sandwich, teacher: Teacher, pace: Pace) -> None:
        self.shared, self.sandwich, self.teacher, self.pace = shared, sandwich, teacher, pace

    def __call__(
        self,
        loss: torch.Tensor,
        forward: Callable[[Inputs], torch.Tensor],
        inputs: Inputs,
        output: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the loss as it is, once the candidates of this step have gone backward."""
        taught = normal_output(output.detach().float(), self.teacher)
        device, factors = output.device, self.shared.factors
        for setting in self.sandwich.draw(self.pace.next()):
            rows = factors.one_hot(setting.tolist())
            weights = self.shared.weights([torch.from_numpy(row).to(device) for row in rows])
            candidate = self.shared.call(inputs, weights, factors.gated(rows))
            soft_loss(self.teacher, candidate, taught, None, weight).backward()
        return loss


def mixture(
    model: nn.Module, factors: Factors, loss: Any, batch: Batch, weights: Sequence[Array]
) -> tuple[float, list[Array]]:
    """Return the loss of a mixture of all options on a batch, and its gradients with respect to the shares."""
    shared, device = Shared(model, factors), device_of(model)
    shares = [torch.from_numpy(row.astype(np.float32)).to(device).requires_grad_(True) for row in weights]
    gates = {block: shares[index][-1] for block, index in factors.gates.items()}
    trains = [(p, p.requires_grad) for p in model.parameters()]
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    model.eval()
    try:
        for parameter, _ in trains:
            parameter.requires_grad_(False)
        for norm in norms:
            norm.train()
        with torch.enable_grad():
            output = shared.call(tensors(model, batch.inputs), shared.weights(shares), gates)
            labels = torch.from_numpy(np.array(to_numpy(batch.targets))).to(device)
            heavy = (
                None if batch.weight is None else torch.from_numpy(np.array(to_numpy(batch.weight))).to(device).float()
            )
            value = loss(output, labels, heavy)
            found = torch.autograd.grad(value, shares, allow_unused=True)
    finally:
        for parameter, flag in trains:
            parameter.requires_grad_(flag)
        model.eval()
    return float(value.detach()), [
        np.zeros(len(row)) if gradient is None else gradient.detach().cpu().double().numpy()
        for row, gradient in zip(weights, found, strict=True)
    ]


def _shaped(factor: Factor, line: torch.Tensor) -> torch.Tensor:
    shape = [1] * factor.rank
    if factor.axis is not None:
        shape[factor.axis] = -1
    return line.reshape(shape)
