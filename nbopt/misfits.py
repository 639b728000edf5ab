"""What to do about a batch that a model does not take, from what it raised."""

from __future__ import annotations

import re

from nbopt.data import LABEL_KEYS, Batch


def remedy(raised: str, batch: Batch) -> str:
    """Return what to do, in the terms of the data that the user gave.

    Args:
        raised: What the model's call said.
        batch: What it was called with.
    """
    labels = " or ".join(map(repr, LABEL_KEYS))
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", raised)
    if unexpected and isinstance(batch.inputs, dict):
        name = unexpected[1]
        said = "" if batch.targets is not None else f"; what is predicted is read from {labels}"
        return (
            f"leave {name!r} out of the batches, or rename it: the model has no input of that name{said}; a model that "
            "takes the dict as one argument needs another around it that takes its parts by name"
        )
    missing = re.search(r"missing \d+ required positional arguments?: (.+)", raised)
    if missing and isinstance(batch.inputs, dict):
        return f"batches with {missing[1]} too, under that name"
    if missing and batch.targets is not None:
        read = "(x, y, weight)" if batch.weight is not None else "(x, y)"
        return (
            f"the model needs {missing[1]} too, while batches were read as {read}: group several inputs, ((a, b), y), "
            "or name them, ({'a': a, 'b': b}, y)"
        )
    if re.search(r"expects \d+ (named )?input", raised):
        # Keras; ([a, b], [y, z]) is read as two batches
        return "group several inputs, ((a, b), y), or name them, ({'a': a, 'b': b}, y), with one array of labels"
    if re.search(r"same dtype|expected scalar type|[Ee]xpected.*dtype|tensors used as indices", raised):
        return "cast the inputs: numbers to float32, ids of an embedding to int64"
    return "check the shape, the channel order and the dtype of what the loader yields"
