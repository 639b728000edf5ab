"""What a model's error says of the data is told in the terms of the data."""

from __future__ import annotations

import numpy as np
import pytest

from nbopt.batches import Batch
from nbopt.misfits import NO_GRADIENT, ONE_ROW, misfit, remedy

X = np.ones((2, 3))
POSITIONAL, NAMED = Batch((X,), X), Batch({"x": X}, X)
MISSING = "forward() missing 1 required positional argument: 'b'"


@pytest.mark.parametrize(
    ("raised", "batch", "told"),
    [
        (MISSING, POSITIONAL, "read as (x, y): group several inputs"),
        (MISSING, Batch((X,), X, X), "read as (x, y, weight)"),
        (MISSING, NAMED, "batches with 'b' too"),
        (MISSING, Batch((X,)), "check the shape"),
        ("forward() got an unexpected keyword argument 'x'", NAMED, "leave 'x' out"),
        ("linear(): argument 'input' (position 1) must be Tensor, not dict", NAMED, "named as none of 'x'"),
        ("'dict' object has no attribute 'shape'", NAMED, "or name it as the batch does"),
        (
            "linear(): argument 'input' (position 1) must be Tensor, not tuple",
            Batch((X, X), X),
            "argument, not 2, and so",
        ),
        (f"{ONE_ROW}, got input size torch.Size([1, 8])", POSITIONAL, "two rows or more"),
        (f"element 0 of tensors {NO_GRADIENT} and does not have a grad_fn", POSITIONAL, "no torch.no_grad()"),
        ('Layer "functional" expects 2 named input(s) with keys', POSITIONAL, "with one array of labels"),
        ("mat1 and mat2 must have the same dtype, but got Long and Float", POSITIONAL, "numbers to float32"),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", POSITIONAL, "check the shape"),
    ],
)
def test_the_remedy_goes_with_the_error(raised: str, batch: Batch, told: str) -> None:
    assert told in remedy(raised, batch)


def test_what_was_raised_is_told_in_one_line_with_the_shapes() -> None:
    keras = "Exception encountered when calling Mine.call().\n\n\x1b[1mno such axis\x1b[0m\n\nArguments received:\n  x"
    found = misfit("train", NAMED, NAMED.inputs, ValueError(keras))
    assert found.came == "inputs x (2, 3) float64, and the model raised ValueError: no such axis"
    graph = (
        'Graph execution error:\n\nDetected at node Reshape\n\n  File "x"\n\n20 values, not 5\n\t [[{{node Reshape}}]]'
    )
    assert misfit("train", NAMED, NAMED.inputs, ValueError(graph)).came.endswith("ValueError: 20 values, not 5")
    assert misfit("valid", POSITIONAL, (X, X), KeyError()).came.startswith("inputs (2, 3) float64, (2, 3) float64, and")
    assert misfit("test", POSITIONAL, (X,), KeyError()).came.endswith("raised KeyError")
