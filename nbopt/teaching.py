"""Teacher: what a training imitates beside its labels, in forms that no framework decides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nbopt.arrays import to_numpy
from nbopt.batches import Inputs, classes_second, leaves
from nbopt.data import Split
from nbopt.errors import OptionError

Array = np.ndarray[Any, Any]
Family = Literal["classes", "labels", "values"]
"""What an output is: one class of several, a yes or no for each column, or numbers."""

METHODS = ("kl", "decoupled")
NEVER = -1e30
"""What stands for a logit of minus infinity, by which models leave classes out: with that, 0 times it would be NaN."""
TINY = 1e-7  # probabilities are clipped to [TINY, 1 - TINY] before their logarithm, as losses do
REMEMBERED_BYTES = 256 << 20
ENTRY_BYTES = 250  # that Python needs for an entry beside its numbers


def family_of(kind: str) -> Family:
    """Return what an output of a kind is."""
    if kind == "regression":
        return "values"
    return "labels" if kind.startswith(("binary", "multilabel")) else "classes"


def axis_of(kind: str, row: Sequence[int], targets: Array | None) -> int:
    """Return where the classes of an output are: 1 where it is (rows, classes, height, width), else -1.

    Args:
        kind: What it means, an OutputKind.
        row: Its shape without the rows.
        targets: Labels of some rows, or None.
    """
    if targets is None or family_of(kind) != "classes":
        return -1
    return 1 if classes_second((len(targets), *row), targets.shape) else -1


def normal_form(raw: Array, kind: str, axis: int = -1) -> Array:
    """Return outputs as log-probabilities of classes in the last axis, as logits of yes and no, or as values.

    A softmax head gives probabilities: taken for logits, as `keras.distillation` does, they would teach next to
    nothing (softmax of numbers in [0, 1] is nearly flat).

    Args:
        raw: A model's outputs.
        kind: What they mean, an OutputKind.
        axis: Where the classes are, 1 or -1.
    """
    values = np.moveaxis(raw, axis, -1).astype(np.float32) if axis != -1 else raw.astype(np.float32)
    if kind == "probabilities":
        return np.asarray(np.log(np.clip(values, TINY, 1.0)))
    if kind in ("logits", "log_probabilities"):
        top = values - values.max(-1, keepdims=True)
        return np.asarray(np.maximum(top - np.log(np.exp(top).sum(-1, keepdims=True)), NEVER))
    if kind.endswith("_probabilities"):
        clipped = np.clip(values, TINY, 1 - TINY)
        return np.asarray(np.log(clipped) - np.log1p(-clipped))
    return values if kind == "regression" else np.maximum(values, NEVER)


def in_kind(normal: Array, kind: str, axis: int = -1) -> Array:
    """Return what a model whose output is of a kind would have given: the way back from `normal_form`."""
    values = normal
    if kind == "probabilities":
        values = np.exp(normal)
    elif kind.endswith("_probabilities") and kind != "log_probabilities":
        values = 1 / (1 + np.exp(-np.clip(normal, -80, 80)))
    return np.moveaxis(values, -1, axis) if axis != -1 else values


def mean_of(normals: Sequence[Array], family: Family) -> Array:
    """Return what several teachers say together: the mean of their probabilities, or of their values."""
    if len(normals) == 1:
        return normals[0]
    stacked = np.stack(normals)
    if family == "values":
        return np.asarray(stacked.mean(0))
    if family == "classes":
        return np.asarray(np.log(np.clip(np.exp(stacked).mean(0), TINY, 1.0)))
    yes = np.clip((1 / (1 + np.exp(-np.clip(stacked, -80, 80)))).mean(0), TINY, 1 - TINY)
    return np.asarray(np.log(yes) - np.log1p(-yes))


class Remembered:
    """Ask a teacher once for each row, whatever batches the row comes in; rows are known by their content.

    A student is trained for many epochs, and its teacher is the slower of the two. Rows that augmentation changes never
    come back: once the room is used up and none was known again, nothing is kept any more.

    Args:
        ask: Gives the outputs for a batch, a row each.
        most: Bytes that may be kept.
    """

    def __init__(self, ask: Callable[[Inputs], Array], most: int = REMEMBERED_BYTES) -> None:
        self.ask, self.most = ask, most
        self.known: dict[bytes, Array] = {}
        self.found = self.held = 0

    def __call__(self, inputs: Inputs) -> Array:
        """Return the teacher's outputs for a batch."""
        full = self.held > self.most
        if full and not self.known:
            return self.ask(inputs)
        keys = row_keys(inputs)
        if all(key in self.known for key in keys):
            self.found += len(keys)
            return np.stack([self.known[key] for key in keys])
        outputs = self.ask(inputs)
        if full and not self.found:
            self.known.clear()
        for key, row in zip(keys, outputs, strict=True):
            if not full and key not in self.known:
                self.held += row.nbytes + ENTRY_BYTES
                self.known[key] = np.array(row)
        return outputs


def row_keys(inputs: Inputs) -> list[bytes]:
    """Return a hash of each row's content and shape."""
    arrays = [np.ascontiguousarray(to_numpy(leaf)) for leaf in leaves(inputs)]
    shapes = str([(array.shape[1:], array.dtype.str) for array in arrays]).encode()
    keys = []
    for row in range(len(arrays[0])):
        digest = hashlib.blake2b(shapes, digest_size=12)
        for array in arrays:
            digest.update(array[row].tobytes())
        keys.append(digest.digest())
    return keys


@dataclass(frozen=True, eq=False)
class Teacher:
    """Say what a training imitates, and how much it counts beside the labels.

    Args:
        outputs: Gives what is taught for a batch of inputs, in `normal_form`; in evaluation mode, without gradients.
        kind: What the student's own output means, an OutputKind.
        axis: Where classes are in the student's output, 1 or -1.
        temperature: Above 0: what log-probabilities are divided by before they are compared; higher shows more of
            how the teacher sees the wrong classes. The loss is multiplied by its square, so that its gradients keep
            their size (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).
        alpha: Weight of the teacher, above 0 (labels only) to 1 (teacher only); labels have 1 - alpha.
        method: "kl", the divergence of the student from the teacher; "decoupled", its part on the label's class and,
            times `beta`, its part among the other classes (Zhao et al. 2022, https://arxiv.org/abs/2203.08679).
        beta: Weight of the other classes in "decoupled", 0 or more.
        loss: What stands in place of the method: called with what goes into layers of the student and comes out of
            them, the same of the teacher, and labels or None; None for the method.
        reads: The layers of the student and of the teacher that it reads.
        hints: Pairs of layers, the teacher's and the student's, whose outputs shall agree.
        hint_weight: Weight of the hints beside the rest, 0 or more.
        model: The teacher that has those layers; None where there are none.
        extra: Rows without labels, learned from the teacher alone: a batch of them with each labelled one.

    Raises:
        OptionError: A value is out of its range.
    """

    outputs: Callable[[Inputs], Array]
    kind: str
    axis: int = -1
    temperature: float = 4.0
    alpha: float = 0.5
    method: str = "kl"
    beta: float = 8.0
    loss: Any = None
    reads: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    hints: tuple[tuple[str, str], ...] = ()
    hint_weight: float = 1.0
    model: Any = None
    extra: Split | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise OptionError("a temperature above 0", f"{self.temperature}", "--temperature 4")
        if not 0 < self.alpha <= 1:
            raise OptionError("an alpha above 0, up to 1", f"{self.alpha}", "--alpha 0.5")
        if self.method not in METHODS:
            raise OptionError(f"a method among {', '.join(METHODS)}", repr(self.method))
        if self.method == "decoupled" and self.family != "classes":
            raise OptionError("an output of classes for decoupled", f"one of {self.kind}", "--method kl")
        if self.beta < 0 or self.hint_weight < 0:
            raise OptionError("weights of 0 or more", f"beta {self.beta}, hint weight {self.hint_weight}")

    @property
    def family(self) -> Family:
        """Return what the output is."""
        return family_of(self.kind)


def pairs_of(hints: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return hint layers as pairs: `conv2` is that layer of both, `conv2=conv1` the teacher's and the student's."""
    found = []
    for hint in hints:
        teacher, _, student = hint.partition("=")
        found.append((teacher.strip(), (student or teacher).strip()))
    return tuple(found)


__all__ = [
    "METHODS",
    "Family",
    "Remembered",
    "Teacher",
    "axis_of",
    "family_of",
    "in_kind",
    "mean_of",
    "normal_form",
    "pairs_of",
    "row_keys",
]
