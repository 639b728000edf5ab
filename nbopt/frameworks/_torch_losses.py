"""Which loss trains a torch module."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.nn import functional

from nbopt.batches import classes_second
from nbopt.errors import ModelError, NbOptWarning
from nbopt.frameworks import OutputKind
from nbopt.frameworks._losses import ALREADY, INFERRED, OF_VALUES, Loss, TrainingLoss, unknown

TINY = 1e-7  # probabilities are clipped to [TINY, 1 - TINY] before their logarithm
IGNORED = -100  # label that losses of sequence models skip, torch's own default


def loss_for(user: Any, kind: OutputKind) -> tuple[TrainingLoss, str]:
    """Return `loss(output, target, weight) -> scalar` and its plain name.

    Args:
        user: The user's loss, `loss(output, target)`, or None to infer it.
        kind: What the output means.

    Raises:
        ModelError: The user's loss can't be called.
    """
    if user is not None:
        if isinstance(user, type):
            raise ModelError(
                "a loss to call with outputs and labels", f"the class {user.__name__}", f"{user.__name__}()"
            )
        if not callable(user):
            raise ModelError("loss as a function or module loss(output, target)", f"{user!r}")
        return _users(user), f"{_name(user)} (yours)"
    losses: dict[str, Callable[..., torch.Tensor]] = {
        "logits": _cross_entropy,
        "probabilities": _nll_of_probabilities,
        "log_probabilities": _nll,
        "binary_logits": _binary_logits,
        "multilabel_logits": _binary_logits,
        "binary_probabilities": _binary,
        "multilabel_probabilities": _binary,
        "regression": _squared,
    }
    loss, name = losses[kind], INFERRED[kind]
    if kind == "regression":
        return TrainingLoss(loss, refusal=OF_VALUES), name
    return TrainingLoss(loss, lambda share: functools.partial(loss, smoothing=share)), name


def _mean(rows: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    if weight is None:
        return rows.mean()
    rows = rows.reshape(len(rows), -1).mean(1) if rows.ndim > 1 else rows
    weight = weight.reshape(-1)  # a column of weights would be spread over all pairs of rows
    return (rows * weight).sum() / weight.sum().clamp_min(TINY)


def _classes_last(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return outputs with their classes in the last axis: (rows, classes, height, width) has them in the second."""
    return output.movedim(1, -1) if classes_second(tuple(output.shape), tuple(target.shape)) else output


def _class_rows(
    log_probabilities: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, smoothing: float
) -> torch.Tensor:
    """Return the mean negative log-likelihood for class labels (any leading axes) or one-hot labels."""
    if smoothing:
        # Of a label that gives a share to all classes alike, whether it comes as a number or as a row of columns.
        evenly = log_probabilities.mean(-1, keepdim=True)
        log_probabilities = (1 - smoothing) * log_probabilities + smoothing * evenly
    classes = log_probabilities.shape[-1]
    if target.shape == log_probabilities.shape:
        return _mean(-(target * log_probabilities).sum(-1), weight)
    flat_target = target.reshape(-1).long()
    rows = functional.nll_loss(
        log_probabilities.reshape(-1, classes), flat_target, reduction="none", ignore_index=IGNORED
    )
    if weight is None:
        return rows.sum() / (flat_target != IGNORED).sum().clamp_min(1)
    return _mean(rows.reshape(len(target), -1).mean(1), weight)


def _cross_entropy(
    output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    return _class_rows(functional.log_softmax(_classes_last(output, target), -1), target, weight, smoothing)


def _nll(
    output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    return _class_rows(_classes_last(output, target), target, weight, smoothing)


def _nll_of_probabilities(
    output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    return _class_rows(_classes_last(output, target).clamp_min(TINY).log(), target, weight, smoothing)


def _halved(target: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return labels 0 and 1 with a share given to both alike."""
    return target * (1 - smoothing) + smoothing / 2 if smoothing else target


def _binary_logits(
    output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    target = _halved(target.reshape(output.shape).to(output.dtype), smoothing)
    return _mean(functional.binary_cross_entropy_with_logits(output, target, reduction="none"), weight)


def _binary(
    output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, smoothing: float = 0.0
) -> torch.Tensor:
    target = _halved(target.reshape(output.shape).to(output.dtype), smoothing)
    return _mean(functional.binary_cross_entropy(output.clamp(TINY, 1 - TINY), target, reduction="none"), weight)


def _squared(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    rows = (output - target.reshape(output.shape).to(output.dtype)) ** 2
    return _mean(rows, weight)


def _users(user: Callable[..., torch.Tensor]) -> TrainingLoss:
    """Adapt a user's loss, and smooth its labels where it is one of torch's own."""
    loss, name = _weighted(user), _name(user)
    if name in ("CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss"):
        if getattr(user, "label_smoothing", 0.0):
            return TrainingLoss(loss, refusal=ALREADY)

        def of_classes(share: float) -> Loss:
            # The logarithms of probabilities are logits too, whose softmax changes nothing.
            return _weighted(
                torch.nn.CrossEntropyLoss(
                    weight=getattr(user, "weight", None),
                    ignore_index=getattr(user, "ignore_index", IGNORED),
                    reduction=getattr(user, "reduction", "mean"),
                    label_smoothing=share,
                )
            )

        return TrainingLoss(loss, of_classes)
    if name in (
        "BCEWithLogitsLoss",
        "BCELoss",
        "MultiLabelSoftMarginLoss",
        "binary_cross_entropy_with_logits",
        "binary_cross_entropy",
    ):

        def of_labels(share: float) -> Loss:
            return lambda output, target, weight: loss(output, _halved(target.to(output.dtype), share), weight)

        return TrainingLoss(loss, of_labels)
    values = name.endswith(("MSELoss", "L1Loss", "HuberLoss", "NLLLoss", "mse_loss", "l1_loss", "huber_loss"))
    return TrainingLoss(loss, refusal=OF_VALUES if values else unknown(name))


def _weighted(user: Callable[..., torch.Tensor]) -> Loss:
    """Adapt a user's loss(output, target), so that row weights apply.

    torch's own losses are asked for a value a row; another one must return that by itself.
    """

    def loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        output, target = _suited(user, output, target)
        value = (user if weight is None else _by_rows(user))(output, target)
        if value.ndim:
            return _mean(value, weight)
        if weight is not None:
            warnings.warn(
                f"{_name(user)} returns one number a batch, so the row weights of train do not reach it; "
                "let it return a value a row",
                NbOptWarning,
                stacklevel=2,
            )
        return value

    return loss


def _name(user: Any) -> str:
    return str(getattr(user, "__name__", type(user).__name__))


def _by_rows(user: Any) -> Callable[..., torch.Tensor]:
    """Return torch's own loss without its reduction; another one as it is."""
    if getattr(user, "reduction", None) == "mean":
        apart = copy.copy(user)
        apart.reduction = "none"
        return cast("Callable[..., torch.Tensor]", apart)
    own = getattr(user, "__module__", "") == functional.__name__
    return functools.partial(user, reduction="none") if own else user


def _suited(user: Any, output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring outputs and labels to the dtype and shape that torch's own losses insist on."""
    if _name(user) in ("CrossEntropyLoss", "NLLLoss", "cross_entropy", "nll_loss"):
        if target.shape == output.shape:
            return output, target
        if output.ndim == 2 and target.shape == (len(output), 1):
            target = target[:, 0]
        tokens = output.ndim > 2 and target.shape == output.shape[:-1]
        # These losses take (rows, classes, tokens); a model of tokens gives (rows, tokens, classes).
        return output.movedim(-1, 1) if tokens else output, target.long()
    if target.numel() == output.numel():
        return output, target.reshape(output.shape).to(output.dtype)
    return output, target
