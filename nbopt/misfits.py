"""What to do about a batch that a model does not take, from what it raised."""

from __future__ import annotations

import re

from nbopt.arrays import to_numpy
from nbopt.batches import LABEL_KEYS, Batch, Inputs
from nbopt.errors import ModelError

ONE_ROW = "Expected more than 1 value per channel when training"
"""What torch's BatchNorm raises of a batch of one row."""

NO_GRADIENT = "does not require grad"
"""What torch raises of a loss that hangs on no weight."""


def misfit(split: str, batch: Batch, inputs: Inputs, error: Exception, who: str = "the model") -> ModelError:
    """Return the error of a model that did not take a batch: what it raised, with the shapes that caused it.

    Args:
        split: "train", "valid" or "test".
        batch: What the user's data gave.
        inputs: What the model was called with.
        error: What it raised.
        who: What may have raised it.
    """
    # Keras writes in bold, below where it was; TensorFlow last, before the node.
    lines = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()]
    telling = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    if telling and telling[0].startswith("Graph execution error"):
        telling = [line for line in telling if not line.startswith(("[[", "File "))][-1:]
    raised = ": ".join([type(error).__name__, *telling[:1]])
    return ModelError(
        f"{split} batches that the model takes",
        f"inputs {', '.join(_shapes(inputs))}, and {who} raised {raised}",
        remedy(str(error), batch),
    )


def _shapes(inputs: Inputs) -> list[str]:
    named = inputs.items() if isinstance(inputs, dict) else (("", leaf) for leaf in inputs)
    arrays = ((name, to_numpy(leaf)) for name, leaf in named)
    return [f"{name} {array.shape} {array.dtype}".strip() for name, array in arrays]


def remedy(raised: str, batch: Batch) -> str:
    """Return what to do, in the terms of the data that the user gave.

    Args:
        raised: What the model's call said.
        batch: What it was called with.
    """
    if ONE_ROW in raised:
        return "batches of two rows or more, which BatchNorm needs to train: DataLoader(..., batch_size=32)"
    if NO_GRADIENT in raised:
        return "let forward compute with gradients: no torch.no_grad(), .detach(), .item() or NumPy on the way"
    labels = " or ".join(map(repr, LABEL_KEYS))
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", raised)
    if unexpected and isinstance(batch.inputs, dict):
        name = unexpected[1]
        said = "" if batch.targets is not None else f"; what is predicted is read from {labels}"
        return f"leave {name!r} out of the batches, or rename it: the model has no input of that name{said}"
    form = "dict" if isinstance(batch.inputs, dict) else "tuple"
    if re.search(rf"not (a )?'?{form}\b|'{form}' object", raised):
        one = "named as none of " + ", ".join(map(repr, batch.inputs)) if form == "dict" else f"not {len(batch.inputs)}"
        do = "name it as the batch does" if form == "dict" else "let forward take each by itself"
        return f"the model has one argument, {one}, and so was given the inputs as one {form}: yield (x, y), or {do}"
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
