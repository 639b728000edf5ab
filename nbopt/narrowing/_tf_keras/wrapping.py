"""TF-MOT's pruning wrappers around the layers of a tf_keras model, driven by the one training loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from nbopt.frameworks._keras_copy import copy_model
from nbopt.frameworks._keras_dialect import is_graph, layers_of, own_variables
from nbopt.frameworks._quiet import quiet
from nbopt.frameworks._tf_keras_copy import known_classes, twin
from nbopt.frameworks._tf_keras_tfmot import tfmot
from nbopt.narrowing._keras.naming import names_of

NEED = "pruning of tf_keras models"
STRIDE = 4
"""Steps of TF-MOT's clock for each update of its masks. Its wrappers count by themselves, one for each call in training
(0.8.1; earlier ones do not), and would rank the weights anew in every step; the loop sets the clock instead."""


@dataclass
class Wrapped:
    """Hold a model whose layers are wrapped; see `nbopt.narrowing.lowering.InLayers`."""

    model: Any
    schedule: str
    rounds: int
    ramp: float
    note: str

    def pace(self, model: Any, done: float) -> bool:
        """Update the masks where the schedule says so; return whether it has ended."""
        now, last = _round_of(self.schedule, done, self.rounds, self.ramp)
        for wrapper in wrappers(model):
            if int(wrapper.pruning_step) < STRIDE * now:
                wrapper.pruning_step.assign(STRIDE * now)
                wrapper.pruning_obj.conditional_mask_update()
            # Between two updates, whether or not a call counts one on.
            wrapper.pruning_step.assign(STRIDE * now + 1)
            wrapper.pruning_obj.weight_mask_op()
        return now >= last

    def hold(self, model: Any) -> None:
        """Put the zeros back."""
        for wrapper in wrappers(model):
            wrapper.pruning_obj.weight_mask_op()

    def finish(self, model: Any) -> Any:
        """Return a copy without wrappers."""
        self.hold(model)
        with quiet():
            plain = copy_model(tfmot(NEED).sparsity.keras.strip_pruning(model))
        for variable in plain.trainable_variables:
            # TF-MOT multiplies: a negative number times 0 is -0.0, and two kinds of zeros deflate worse.
            variable.assign(tf.where(variable == 0, tf.zeros_like(variable), variable))
        return plain


def wrapped(model: Any, names: Sequence[str], share: float, schedule: str, rounds: int, ramp: float) -> Wrapped | str:
    """Return a copy of a model with TF-MOT's wrappers around the layers that hold some weights, or why that can't be.

    N:M patterns are not among what it is asked for: `PruneLowMagnitude.get_config` of TF-MOT 0.8.1 leaves
    `sparsity_m_by_n` out, so that a copy of the wrapped model prunes without the pattern.
    """
    sparsity = tfmot(NEED).sparsity.keras
    if not is_graph(model) or any(isinstance(layer, tf_keras.Model) for layer in model.layers):
        return "TF-MOT takes functional and Sequential models without models in them"
    wanted = {variable for variable, name in names_of(model).items() if name in names}
    chosen, left = set(), []
    for layer in model.layers:
        owned = {id(variable) for part in (layer, *layers_of(layer)) for variable in own_variables(part)}
        if not owned & wanted:
            continue
        if not _supports(layer):
            left.append(layer.name)
        chosen.add(layer.name)
    if left:
        return f"TF-MOT does not know {', '.join(left[:3])}"
    plan = _plan_of(sparsity, share, schedule, rounds)

    def wrap(layer: Any) -> Any:
        made = twin(layer)
        return sparsity.prune_low_magnitude(made, pruning_schedule=plan) if layer.name in chosen else made

    with quiet(), known_classes(model):
        made = tf_keras.models.clone_model(model, clone_function=wrap)
    originals = {layer.name: layer for layer in model.layers}
    for layer in made.layers:
        inner = layer.layer if layer in wrappers(made) else layer
        if inner.name in originals:
            inner.set_weights(originals[inner.name].get_weights())
            inner.trainable = originals[inner.name].trainable
    whole = [wrapper.layer.name for wrapper in wrappers(made) if not wrapper.prunable_weights]
    if len(whole) == len(chosen):
        return f"TF-MOT prunes nothing of {', '.join(whole[:3])}"
    note = f"by TF-MOT's prune_low_magnitude ({type(plan).__name__}), {share:g} of each layer alike"
    if whole:
        note += f"; it leaves {', '.join(whole[:3])}{', ...' if whole[3:] else ''} whole"
    return Wrapped(made, schedule, rounds, ramp, note)


def wrappers(model: Any) -> list[Any]:
    """Return the wrappers in a model."""
    from tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper import PruneLowMagnitude

    return [layer for layer in model.layers if isinstance(layer, PruneLowMagnitude)]


def _supports(layer: Any) -> bool:
    from tensorflow_model_optimization.python.core.sparsity.keras.prune_registry import PruneRegistry

    return bool(PruneRegistry.supports(layer)) or hasattr(layer, "get_prunable_weights")


def _plan_of(sparsity: Any, share: float, schedule: str, rounds: int) -> Any:
    """Return TF-MOT's schedule: constant, or a polynomial of the third (Zhu & Gupta 2017) or first power."""
    if schedule == "one-shot" or rounds <= 1:
        return sparsity.ConstantSparsity(share, begin_step=0, end_step=-1, frequency=STRIDE)
    cubic = schedule == "cubic"
    return sparsity.PolynomialDecay(
        initial_sparsity=0.0 if cubic else share / rounds,
        final_sparsity=share,
        begin_step=0,
        end_step=STRIDE * (rounds if cubic else rounds - 1),
        power=3 if cubic else 1,
        frequency=STRIDE,
    )


def _round_of(schedule: str, done: float, rounds: int, ramp: float) -> tuple[int, int]:
    """Return which update of the masks is due, from 0, and which is the last; `ramp` is when a cubic schedule ends."""
    if schedule == "one-shot" or rounds <= 1:
        return 0, 0
    last = rounds if schedule == "cubic" else rounds - 1
    # A hair on top, since 0.1 * 3 * 10 is less than 3 in binary.
    return min(last, math.floor((done / ramp if schedule == "cubic" else done) * rounds + 1e-9)), last
