"""Models and data among a notebook's variables, of both frameworks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from nbopt.jupyter.namespace import data_names, is_array, is_data, is_model, names_of

X, Y = np.zeros((4, 2), "float32"), np.zeros(4, "int64")


class Loader:
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> object:
        return X, Y


@pytest.mark.parametrize(
    "value", [(X, Y), (X, Y, Y), ((X, X), Y), ({"a": X}, Y), [(X, Y)], {"a": X, "labels": Y}, Loader()]
)
def test_forms_of_data(value: object) -> None:
    assert is_data(value)
    assert not is_model(value)


@pytest.mark.parametrize(
    "value",
    [None, "text", 3, X, [1, 2], (1, 2), ("a", "b"), {"a": X}, iter([X]), np, int, len, lambda: X, range(3), Loader],
)
def test_what_is_neither(value: object) -> None:
    assert not is_data(value)
    assert not is_model(value)


def test_torch() -> None:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    rows = TensorDataset(torch.zeros(4, 2), torch.zeros(4))
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert is_model(net)
    assert not is_data(net)
    assert not is_model(torch.nn.Linear)
    assert is_data(DataLoader(rows))
    assert not is_data(rows), "it gives single rows"
    assert is_data((torch.zeros(4, 2), torch.zeros(4)))
    assert is_array(torch.zeros(1))


def test_keras() -> None:
    import keras
    import tensorflow as tf

    net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert is_model(net)
    assert not is_data(net)
    assert is_data(tf.data.Dataset.from_tensor_slices((X, Y)).batch(2))
    assert is_array(tf.zeros(1))


def test_tables_and_their_labels_are_a_pair() -> None:
    table, labels = pd.DataFrame({"a": [1.0, 2.0]}), pd.Series([0, 1])
    assert is_array(table)
    assert is_array(labels)
    assert data_names({"X_train": table, "y_train": labels, "y_test": labels[:1]}) == ["X_train,y_train"]


def test_ipythons_own_names_are_left_out() -> None:
    assert names_of({"_": 1, "Out": 1, "In": 1, "a": 1, "b": 2}, lambda value: value == 1) == ["a"]
