"""Mix the rows of a batch of TensorFlow tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from nbopt.frameworks._mixing import Mix, Mixing


def mixed(mixing: Mixing, inputs: Any, target: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return the inputs mixed, and labels and weights as `mixed_loss` takes them.

    Raises:
        DataError: The inputs can't be mixed.
    """
    flat = tf.nest.flatten(inputs)
    mix = mixing.draw(int(flat[0].shape[0]), [(leaf.dtype.name, tuple(leaf.shape)) for leaf in flat])
    inputs = tf.nest.map_structure(lambda leaf: _blend(leaf, mix), inputs)
    # A share for each row: the compiled step is traced for any number of rows in each of its tensors.
    share = tf.fill([len(mix.order)], tf.constant(mix.share, tf.float32))
    weights = None if weight is None else (weight, tf.gather(weight, mix.order))
    return inputs, (target, tf.gather(target, mix.order), share), weights


def _blend(leaf: Any, mix: Mix) -> Any:
    partner = tf.gather(leaf, mix.order)
    region = mix.region(tuple(leaf.shape))
    if region is None:
        share = tf.cast(mix.share, leaf.dtype)
        return share * leaf + (1 - share) * partner
    inside = np.zeros([1, *leaf.shape[1:]], bool)
    inside[region] = True
    return tf.where(inside, partner, leaf)


def mixed_loss(loss: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Return the loss under the rows' own labels and their partners', by the shares."""

    def value(output: Any, targets: Any, weights: Any) -> Any:
        own, partners, share = targets
        first, second = (None, None) if weights is None else weights
        kept = share[0]
        one, other = (tf.cast(loss(output, t, w), tf.float32) for t, w in ((own, first), (partners, second)))
        return kept * one + (1 - kept) * other

    return value
