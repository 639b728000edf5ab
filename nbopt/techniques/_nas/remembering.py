"""The last hunt in this kernel: what stands beside it uses its table and its weights, and one that was cut off goes on.

One is held, not one for each model: it has a copy of the whole model.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from nbopt.draft import Context
from nbopt.techniques._nas.building import Picked
from nbopt.techniques._nas.hunting import Finalist, Hunt
from nbopt.techniques._nas.purse import Purse
from nbopt.techniques._nas.reading import code_of
from nbopt.training import TrainingPlan


@dataclass
class Remembered:
    """Hold a hunt.

    Args:
        key: What was searched, and with which seed.
        text: The options, as a line has them.
        purse: Its budget.
        hunt: What it has so far; None where candidates were built by a cell's body.
        latency_ms: What its choice takes where it will run; None until there is one.
        beside: Words of what is still to stand beside it.
        by: What its choice went by, beside the options: the loss that is allowed, and the training.
        chosen: What it found, once it has ended: the same recipe with another last step goes on with that.
        table: What was tried, as plain data of `Run.search`.
        notes: What must be said of it.
    """

    key: str
    text: str
    purse: Purse
    hunt: Hunt | None = None
    latency_ms: float | None = None
    beside: set[str] = field(default_factory=set)
    by: str = ""
    chosen: Finalist | Picked | None = None
    table: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def again(self, purse: Purse, beside: set[str]) -> None:
        """Begin a budget anew, for what its choice is taken for once more.

        Args:
            purse: The budget.
            beside: Words of what must stand beside it once more.
        """
        self.purse, self.beside = purse, {*beside}
        self.hunt = None if self.hunt is None else replace(self.hunt, purse=purse)


_LAST: list[Remembered] = []


def remember(found: Remembered) -> None:
    """Keep a hunt, in place of the last one."""
    _LAST[:] = [found]


def last(key: str, text: str | None = None) -> Remembered | None:
    """Return the last hunt, None where it was of something else, or by other options than a text says."""
    return next((each for each in _LAST if each.key == key and text in (None, each.text)), None)


def key_of(model: Any, context: Context) -> str:
    """Return what tells one search from another: the model's weights, data, loss, limit, where it runs, the seed."""
    workload = context.workload
    digest = hashlib.blake2b(digest_size=16)
    for name, value in workload.framework.weights(model):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    loss = code_of(workload.user_loss) if callable(workload.user_loss) else workload.loss_name
    data = f"{workload.digest} {workload.train_digest} {loss}"
    return f"{digest.hexdigest()} {data} {context.max_latency} {context.where} {context.seed}"


def going_by(plan: TrainingPlan, context: Context) -> str:
    """Return what a choice goes by beside the options: the loss that is allowed, and the training.

    With a teacher in it a training is like no other: what that says is not known here.
    """
    by = f"{context.max_drop} {replace(plan, teacher=None)}"
    return by if plan.teacher is None else f"{by} {uuid.uuid4()}"
