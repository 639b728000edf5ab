"""What a soft loss is, in NumPy: both frameworks must give the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.teaching import Teacher, normal_form

Array = np.ndarray[Any, Any]


def softmax(x: Array) -> Array:
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def divergence(p: Array, q: Array) -> Array:
    return (p * (np.log(p) - np.log(q))).sum(-1)


def expected(teacher: Teacher, student_raw: Array, taught: Array, weight: Array | None = None) -> float:
    """Return the soft loss of a batch, by the formulas of the papers; labels are class 0."""
    t, student = teacher.temperature, normal_form(student_raw, teacher.kind)
    if teacher.family == "values":
        rows = ((student - taught) ** 2).mean(-1)
        t = 1.0
    elif teacher.family == "labels":
        p, q = (1 / (1 + np.exp(-each / t)) for each in (taught, student))
        rows = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean(-1)
    elif teacher.method == "kl":
        rows = divergence(softmax(taught / t), softmax(student / t))
    else:
        p, q = softmax(taught / t), softmax(student / t)
        whether = divergence(np.stack([p[:, 0], 1 - p[:, 0]], -1), np.stack([q[:, 0], 1 - q[:, 0]], -1))
        others = divergence(*(each[:, 1:] / each[:, 1:].sum(-1, keepdims=True) for each in (p, q)))
        rows = whether + teacher.beta * others
    return float(t * t * np.average(rows, weights=weight))
