from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_sparsify

from nbopt.frameworks._keras_export import convert_litert
from nbopt.frameworks._quiet import quiet
from nbopt.runtimes._litert_layers import _Graph
from nbopt.workload import Workload
from tests.keras_models import L


def _weights(content):
    graph = _Graph(schema.Model.GetRootAs(content, 0), 0, {})
    stored = [i for i, shape in enumerate(graph.shapes.values()) if len(shape) > 1 and graph.constant(i) == i]
    sparse = [i for i in stored if graph.tensors[i].Sparsity() is not None]
    return {graph.values(i, content).tobytes() for i in stored}, len(sparse)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_sparse_weights_are_unpacked_to_what_they_were(share):
    body = [L.Conv2D(16, 3), L.Conv2D(33, 1), L.Flatten(), L.Dense(70), L.Dense(5)]
    model = keras.Sequential([keras.Input((8, 8, 3)), *body])
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if variable.name == "kernel":
            variable.assign(np.where(rng.random(variable.shape) < share, 0, variable.numpy()))
    work = Workload(model, valid=(rng.normal(size=(4, 8, 8, 3)).astype(np.float32), np.arange(4)))
    dense = convert_litert(model, work.signature, None)
    with quiet():
        sparse = mlir_sparsify(dense)
    assert len(sparse) < len(dense)
    (before, none), (after, some) = _weights(dense), _weights(sparse)
    assert none == 0
    assert some >= 3
    assert before == after
