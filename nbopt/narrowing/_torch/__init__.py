"""Lower pruning to torch: zeros in place, and widths found by torch-pruning's dependency graph."""

from __future__ import annotations

from typing import Any

from torch import nn

from nbopt.batches import Inputs
from nbopt.frameworks._torch_norms import recalibrate
from nbopt.narrowing._torch import vocabulary, weights
from nbopt.narrowing._torch.sparse import sparse_word
from nbopt.narrowing._torch.widths import TracedModule


class TorchLowering:
    """Do for a torch module what pruning asks of a framework; see `nbopt.narrowing.lowering.Lowering`."""

    prunable_weights = staticmethod(weights.prunable_weights)
    tables = staticmethod(weights.tables)
    input_axes = staticmethod(weights.input_axes)
    put_zeros = staticmethod(weights.put_zeros)
    magnitudes = staticmethod(weights.magnitudes)
    scales = staticmethod(weights.scales)
    taylor = staticmethod(weights.taylor)
    recalibrate = staticmethod(recalibrate)
    sparse_word = staticmethod(sparse_word)
    lookups = staticmethod(vocabulary.lookups)
    with_shared_rows = staticmethod(vocabulary.with_shared_rows)

    def shapes(self, model: nn.Module) -> dict[str, tuple[int, ...]]:
        """Return the shapes of all parameters, by name."""
        return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}

    def layers(self, model: nn.Module) -> list[str]:
        """Return the names of all modules."""
        return [name for name, _ in model.named_modules() if name]

    def trace(self, model: Any, example: Inputs) -> TracedModule:
        """Find what can be made narrower."""
        return TracedModule(model, example)


LOWERING = TorchLowering()
