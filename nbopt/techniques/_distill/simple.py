"""Which simple students there are for a kind of input: plain descriptions, decided from shapes and values.

A linear model, one small MLP, a bag of embeddings for token ids (Joulin et al. 2017, https://arxiv.org/abs/1607.01759),
a small 1-D CNN (Kim 2014, https://arxiv.org/abs/1408.5882) and a small 2-D CNN. On real workloads such a student was 10
to 60 times faster than the teacher at its quality, where compressing the teacher gave 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nbopt.errors import ModelError
from nbopt.frozen import Leaf

Array = np.ndarray[Any, Any]
Use = Literal["numbers", "tokens", "mask", "unused"]

MOST_PLACES = 16
"""Tokens of a row up to which each is looked up in its place; more are a text, whose words are a bag."""
HIDDEN = 64  # units of the MLP's one layer
EMBEDDED = 32  # numbers for each token
GAIN = 10.0
"""What looked-up embeddings are multiplied by. A token comes in few rows, and an optimizer that scales its steps moves
it little: without it, a linear model of fine-food reviews gave the larger class after 12 epochs (65%), with it 73%."""
STARTED = 0.01  # standard deviation of embeddings before they learn
CHANNELS = 32  # of the CNNs' first layer
DROPOUT = 0.2
MOST_FLAT = 20_000
"""Numbers of a row above which no student looks at all of them at once: its weights would outgrow the teacher's."""
MASKS = ("mask",)
UNUSED = ("token_type", "position", "segment")
"""Parts of the names that what goes along with the tokens of a text has; of other inputs they mean nothing."""


@dataclass(frozen=True, eq=False)
class Column:
    """Say how one input enters a student.

    Args:
        name: The input's name.
        use: "numbers", "tokens" (whole numbers that are looked up), "mask" of the tokens, or "unused".
        shape: Of a row; None for an axis whose length varies.
        dtype: NumPy name.
        size: Of numbers how many a row has where that is fixed; of tokens how many different ones there are.
        mean: Of numbers, over train: the students bring them to one scale.
        spread: Likewise, their standard deviation, never 0.
        channel_axis: Of a row of numbers with several axes, the axis that its channels lie along.
    """

    name: str
    use: Use
    shape: tuple[int | None, ...]
    dtype: str
    size: int = 0
    mean: float | Array = 0.0
    spread: float | Array = 1.0
    channel_axis: int = -1

    @property
    def in_places(self) -> bool:
        """Tell whether each of its tokens means something of its own, as the columns of a table do."""
        return in_places(self.shape)

    @property
    def channels(self) -> int:
        """Return the numbers at each place, 0 where that varies; rows of single numbers have one."""
        return (self.shape[self.channel_axis] or 0) if len(self.shape) > 1 else 1


@dataclass(frozen=True, eq=False)
class Design:
    """Describe a simple student.

    Args:
        word: "linear", "mlp", "conv1d" or "conv2d".
        columns: How its inputs enter, in order.
        keyed: It is called with a mapping of inputs.
        outputs: Shape of a row's output.
        kind: What the output means.
        places: It gives an output for each place along a row (each token, each step).
        shift: Of values, what is added to the output: the mean over train.
        scale: Of values, what it is multiplied by before that: their standard deviation.
    """

    word: str
    columns: tuple[Column, ...]
    keyed: bool
    outputs: tuple[int, ...]
    kind: str
    places: bool = False
    shift: float | Array = 0.0
    scale: float | Array = 1.0

    @property
    def title(self) -> str:
        """Return what it is, in words."""
        tokens = any(column.use == "tokens" for column in self.columns)
        return {
            "linear": "a linear model of the tokens" if tokens else "a linear model",
            "mlp": f"a bag of embeddings, then {HIDDEN} units" if tokens else f"an MLP of {HIDDEN} units",
            "conv1d": "a small 1-D CNN",
            "conv2d": "a small 2-D CNN",
        }[self.word]


def columns_of(
    inputs: Sequence[Leaf],
    values: Sequence[Array],
    channels: int | None = None,
    channels_last: bool = False,
    vocabulary: int | None = None,
) -> tuple[Column, ...]:
    """Tell how each input enters.

    Args:
        inputs: Name, dtype and shape of each input, the batch axis first.
        values: Some rows of train, of each input.
        channels: Channels that the teacher's first layer takes, where it tells.
        channels_last: The framework has channels in the last axis.
        vocabulary: How many different tokens the teacher can look up, 0 where it looks up none; whole numbers from
            there on are amounts. None where that is not known.
    """
    several = list(zip(inputs, values, strict=True))
    looked_up = [_are_tokens(leaf.shape[1:], array, vocabulary) for leaf, array in several]
    texts = {
        leaf.shape
        for (leaf, _), tokens in zip(several, looked_up, strict=True)
        if tokens and len(leaf.shape) == 2 and not _named(leaf, *UNUSED, *MASKS)
    }
    found = []
    for (leaf, array), tokens in zip(several, looked_up, strict=True):
        shape, beside = leaf.shape[1:], _is_whole(array) and leaf.shape in texts
        if beside and _named(leaf, *UNUSED):
            found.append(Column(leaf.name, "unused", shape, leaf.dtype))
        elif beside and _named(leaf, *MASKS):
            found.append(Column(leaf.name, "mask", shape, leaf.dtype))
        elif tokens:
            # One more, which tokens that train does not have share.
            found.append(Column(leaf.name, "tokens", shape, leaf.dtype, int(array.max(initial=0)) + 2))
        else:
            found.append(_numbers(leaf.name, shape, leaf.dtype, array.astype(np.float32), channels, channels_last))
    return tuple(found)


def _named(leaf: Leaf, *words: str) -> bool:
    return any(word in leaf.name for word in words)


def _is_whole(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.integer)) or array.dtype == bool


def _are_tokens(shape: tuple[int | None, ...], array: Array, vocabulary: int | None) -> bool:
    """Tell ids that are looked up from amounts, which come as whole numbers too."""
    if not _is_whole(array) or len(shape) > 1 or array.min(initial=0) < 0:
        return False
    greatest = int(array.max(initial=0))
    if not in_places(shape) and greatest <= 1:
        return False  # a text of one word: columns of yes and no
    return vocabulary is None or greatest < vocabulary


def in_places(shape: tuple[int | None, ...]) -> bool:
    """Tell whether each number of a row means something of its own, as the columns of a table do."""
    return not shape or (shape[0] is not None and shape[0] <= MOST_PLACES)


def _numbers(
    name: str, shape: tuple[int | None, ...], dtype: str, array: Array, channels: int | None, channels_last: bool
) -> Column:
    fixed = all(size is not None for size in shape)
    size = int(np.prod([each for each in shape if each is not None])) if fixed else 0
    if len(shape) <= 1 and fixed:
        # In float64: of times since 1970 the squares are beyond what float32 can tell apart.
        mean, spread = array.mean(0, dtype=np.float64), array.std(0, dtype=np.float64)
        return Column(name, "numbers", shape, dtype, size, mean, np.where(spread > 1e-6, spread, 1.0))
    middle, around = float(array.mean()), float(array.std()) or 1.0
    axis = len(shape) - 1
    if not channels_last and len(shape) > 1:
        sizes = list(shape)
        if channels is not None and channels in (sizes[0], sizes[-1]):
            axis = 0 if sizes[0] == channels and sizes[-1] != channels else len(shape) - 1
            if len(shape) > 2 and sizes[0] == channels:
                axis = 0
        elif len(shape) > 2:
            axis = 0
        elif sizes[0] is not None and sizes[-1] is not None and sizes[0] < sizes[-1]:
            axis = 0  # the shorter axis is taken for the channels
    return Column(name, "numbers", shape, dtype, size, middle, around, axis)


def designs(
    columns: tuple[Column, ...],
    *,
    keyed: bool,
    outputs: tuple[int, ...],
    kind: str,
    family: str,
    targets: Array | None = None,
) -> tuple[Design, ...]:
    """Return the simple students for these inputs and outputs, the simplest first.

    Args:
        columns: How the inputs enter.
        keyed: The model is called with a mapping of inputs.
        outputs: Shape of a row's output.
        kind: What the output means.
        family: "classes", "labels" or "values".
        targets: Of values, those of train: a student's last layer starts on their scale.

    Raises:
        ModelError: There is no simple student for such outputs, or for such inputs.
    """
    used = [column for column in columns if column.use in ("numbers", "tokens")]
    if not used:
        raise ModelError("inputs of numbers or tokens, for --student simple", "none", "--student with a model")
    shift: float | Array = 0.0
    scale: float | Array = 1.0
    if family == "values" and targets is not None:
        flat = targets.reshape(len(targets), -1).astype(np.float32)
        width = outputs[-1] if outputs else 1
        by_column = flat.shape[1] == width
        spread = flat.std(0) if by_column else flat.std()
        shift, scale = (flat.mean(0) if by_column else flat.mean()), np.where(spread > 1e-6, spread, 1.0)
    lengths = {column.shape[0] for column in used if column.shape}
    places = len(outputs) == 2 and len(used) == 1 and (None in lengths or outputs[0] in lengths)
    if len(outputs) > 1 and not places:
        raise ModelError(
            "an output of one row of numbers, or one for each token or step, for --student simple",
            f"outputs of shape {('rows', *outputs)}",
            "--student narrow, or --student with a model",
        )
    words = ["linear", "mlp"]
    if places:
        words = ["linear", "conv1d"]
    else:
        if any(column.use == "numbers" and column.size > MOST_FLAT for column in used):
            words = []
        if len(used) == 1:
            axes = len(used[0].shape)
            if (used[0].use == "tokens" and axes == 1) or (used[0].use == "numbers" and axes == 2):
                words.append("conv1d")
            elif used[0].use == "numbers" and axes == 3:
                words.append("conv2d")
    if not words:
        raise ModelError(
            f"inputs of up to {MOST_FLAT:,} numbers a row, or one image, for --student simple",
            "larger ones",
            "--student narrow, or --student with a model",
        )
    return tuple(Design(word, columns, keyed, outputs, kind, places, shift, scale) for word in words)
