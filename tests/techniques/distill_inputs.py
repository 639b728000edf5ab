"""Inputs and outputs of every kind that simple students are made for."""

from __future__ import annotations

from typing import Any

import numpy as np

TOKENS = np.random.default_rng(0).integers(1, 50, size=(12, 30))

CASES: list[tuple[Any, tuple[int, ...], str]] = [
    ((np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32),), (3,), "probabilities"),
    ((np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32),), (), "regression"),
    ((np.random.default_rng(0).normal(size=(12, 29, 12)).astype(np.float32),), (9,), "log_probabilities"),
    ((np.random.default_rng(0).normal(size=(12, 1, 8, 8)).astype(np.float32),), (10,), "logits"),
    ((np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32), TOKENS[:, :3]), (1,), "binary_logits"),
    ({"input_ids": TOKENS, "attention_mask": np.ones_like(TOKENS)}, (4,), "multilabel_probabilities"),
    ({"input_ids": TOKENS, "attention_mask": np.ones_like(TOKENS)}, (30, 5), "logits"),
]
