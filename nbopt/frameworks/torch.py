"""PyTorch: copy, run, count, and what its losses and layers say of the output."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nbopt.batches import Inputs
from nbopt.errors import ModelError
from nbopt.frameworks import Exported, Fitting, OutputKind, Signature, Stepping
from nbopt.training import TrainingPlan, TrainingRecord

if TYPE_CHECKING:
    import torch

LOSS_KINDS: dict[str, OutputKind] = {
    "CrossEntropyLoss": "logits",
    "NLLLoss": "log_probabilities",
    "BCEWithLogitsLoss": "binary_logits",
    "BCELoss": "binary_probabilities",
    "MultiLabelSoftMarginLoss": "multilabel_logits",
    "MSELoss": "regression",
    "L1Loss": "regression",
    "SmoothL1Loss": "regression",
    "HuberLoss": "regression",
    "GaussianNLLLoss": "regression",
    "PoissonNLLLoss": "regression",
    "cross_entropy": "logits",
    "nll_loss": "log_probabilities",
    "binary_cross_entropy_with_logits": "binary_logits",
    "binary_cross_entropy": "binary_probabilities",
    "mse_loss": "regression",
    "l1_loss": "regression",
    "smooth_l1_loss": "regression",
    "huber_loss": "regression",
}


class TorchFramework:
    """Do for `torch.nn.Module` what techniques need."""

    name = "torch"
    family = "torch"
    native_runtime = "torch"

    def owns(self, model: Any) -> bool:
        """Tell whether `model` is a `torch.nn.Module`, without importing torch.

        Raises:
            ModelError: It is TorchScript, which can neither be copied nor changed.
        """
        torch = sys.modules.get("torch")
        module = getattr(torch, "nn", None)
        if torch is None or module is None or not isinstance(model, module.Module):
            return False
        if isinstance(model, torch.jit.ScriptModule):
            raise ModelError(
                "a torch.nn.Module in Python",
                f"a {type(model).__name__}, which is TorchScript",
                "bind the module that torch.jit.script or torch.jit.trace was given",
            )
        return True

    def in_training_mode(self, model: torch.nn.Module) -> bool:
        """Tell whether any layer is in training mode."""
        return any(module.training for module in model.modules())

    def device(self, model: torch.nn.Module) -> str:
        """Return the device of the first parameter, "cpu" where there is none."""
        from nbopt.frameworks._torch_module import device_of

        return device_of(model)

    def float_dtype(self, model: torch.nn.Module) -> str:
        """Return the NumPy name of the dtype of the first floating parameter."""
        for parameter in model.parameters():
            if parameter.dtype.is_floating_point:
                name = str(parameter.dtype).removeprefix("torch.")
                # NumPy has no bfloat16: inputs come as float32 and are cast on the way in.
                return name if name in ("float16", "float32", "float64") else "float32"
        return "float32"

    def clone(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return an independent copy in evaluation mode.

        Raises:
            ModelError: Neither deepcopy nor pickle can copy it.
        """
        from nbopt.frameworks._torch_module import clone

        return clone(model)

    def predict(self, model: torch.nn.Module, inputs: Inputs) -> np.ndarray[Any, Any]:
        """Return the primary output in evaluation mode; a model in training mode is copied first."""
        import torch

        from nbopt.frameworks._torch_module import call, clone, output_array, tensors

        if self.in_training_mode(model):
            model = clone(model)
        # Not inference_mode: a mask or a table that the model makes at its first call and keeps could then be in no
        # backward pass any more, neither in a training here nor in the user's own.
        with torch.no_grad():
            return output_array(call(model, tensors(model, inputs)))

    def passed_over(self, model: torch.nn.Module, inputs: Inputs) -> str:
        """Return in words which of several outputs is judged, where nothing but its place says so; "" elsewhere."""
        import torch

        from nbopt.frameworks._primary import passed_over
        from nbopt.frameworks._torch_module import called, clone, tensors

        if self.in_training_mode(model):
            model = clone(model)
        with torch.no_grad():
            return passed_over(called(model, tensors(model, inputs)))

    def weights(self, model: torch.nn.Module) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Yield each parameter and buffer by name, as NumPy."""
        import torch

        from nbopt.frameworks._torch_module import plain_tensor

        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            tensor = plain_tensor(value.detach()).cpu()
            yield name, (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()

    def count(self, model: torch.nn.Module) -> tuple[int, int]:
        """Return parameters, and those that are not zero; a pruned layer's mask counts."""
        from nbopt.frameworks._torch_module import plain_tensor

        total = nonzero = 0
        buffers = dict(model.named_buffers())
        for name, parameter in model.named_parameters():
            value = plain_tensor(parameter.detach())
            mask = buffers.get(name.removesuffix("_orig") + "_mask") if name.endswith("_orig") else None
            total += value.numel()
            nonzero += int(((value if mask is None else value * mask) != 0).sum())
        return total, nonzero

    def declared_output(self, model: torch.nn.Module, loss: Any) -> OutputKind | None:
        """Return what the loss or a final activation says of the output."""
        import torch

        if loss is not None:
            name = getattr(loss, "__name__", type(loss).__name__)
            if name in LOSS_KINDS:
                return LOSS_KINDS[name]
        from nbopt.frameworks._torch_module import last_leaf

        last = last_leaf(model)
        if isinstance(last, torch.nn.LogSoftmax):
            return "log_probabilities"
        if isinstance(last, torch.nn.Softmax):
            return "probabilities"
        return None

    def loss(self, model: torch.nn.Module, loss: Any, kind: OutputKind) -> tuple[Any, str]:
        """Return the loss to train with and its plain name."""
        from nbopt.frameworks import _torch_losses

        return _torch_losses.loss_for(loss, kind)

    def fit(self, model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
        """Train `model` in place by the plan."""
        from nbopt.frameworks import _torch_fit, _torch_processes

        return (_torch_processes if plan.devices > 1 else _torch_fit).fit(model, plan, fitting)

    def check_devices(self, model: torch.nn.Module, plan: TrainingPlan, *, held: bool = False) -> None:
        """Refuse a plan that can't be carried out on so many devices."""
        if plan.devices > 1:
            from nbopt.frameworks import _torch_processes

            _torch_processes.check(model, plan, held=held)

    def native_halves(self, model: torch.nn.Module) -> tuple[str, ...]:
        """Return the half precisions that the model can be trained in where it lies."""
        from nbopt.frameworks._torch_precision import native_halves

        return native_halves(model)

    def stepping(self, model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> Stepping:
        """Return what makes single steps of a plan, on a copy of the model and the first batch."""
        from nbopt.frameworks import _torch_steps

        return _torch_steps.stepping(model, plan, fitting)

    def initialise(self, model: torch.nn.Module, seed: int) -> torch.nn.Module:
        """Draw all weights anew, in place."""
        from nbopt.frameworks import _torch_initial

        return _torch_initial.initialise(model, seed)

    def state(self, model: torch.nn.Module) -> dict[str, Any]:
        """Return a copy of all weights, buffers and extra state."""
        from nbopt.frameworks._torch_module import state_of

        return state_of(model)

    def load_state(self, model: torch.nn.Module, state: dict[str, Any]) -> None:
        """Put a copy from `state` back into `model`."""
        model.load_state_dict(state)

    def exporting(self) -> AbstractContextManager[None]:
        """Keep the ONNX graph of the last model, from which several runtimes' files are made."""
        from nbopt.frameworks import _torch_export

        return _torch_export.graph_kept()

    def export(self, model: torch.nn.Module, signature: Signature, path: Path, form: str) -> Exported:
        """Write the model as "torch", "onnx" or "openvino"."""
        from nbopt.frameworks import _torch_export

        return _torch_export.export(model, signature, path, form)


FRAMEWORK = TorchFramework()
