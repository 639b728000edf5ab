"""Make single training steps of a Keras model, to be timed before anything is trained."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import tensorflow as tf

from nbopt.errors import DataError
from nbopt.frameworks import Fitting, Stepping, no_half
from nbopt.frameworks._keras_dialect import raw
from nbopt.frameworks._keras_fit import Loop, seed_layers
from nbopt.training import TrainingPlan


def stepping(twin: Any, plan: TrainingPlan, fitting: Fitting) -> Stepping:
    """Return what makes one step of a plan at a time, on the first batch.

    Args:
        twin: A copy of the model; it is trained.
        plan: The training.
        fitting: What it trains against.

    Raises:
        DataError: There is no batch, or its labels don't go with the output.
        ModelError: The model has nothing that trains, or can't compute in the plan's half precision.
    """
    seed_layers(twin, plan.seed)
    loop = Loop(twin, plan, fitting, time.perf_counter())
    batch = next(iter(fitting.split.training_batches(plan.batch_size, np.random.default_rng(plan.seed))), None)
    if batch is None:
        raise DataError("a batch of train", "none")

    def step() -> None:
        loop.one(batch)

    if plan.precision != "float32":
        try:
            step()
        except (tf.errors.OpError, RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            raise no_half(plan, error) from error
    gpu = next((name for v in twin.weights if "GPU" in (name := raw(v).device.rpartition("device:")[2])), "")

    def memory() -> int | None:
        # TensorFlow counts memory on a GPU alone, and that of the process says little: what was freed stays in it.
        if not gpu:
            return None
        tf.config.experimental.reset_memory_stats(gpu)
        before = tf.config.experimental.get_memory_info(gpu)["current"]
        step()
        return int(tf.config.experimental.get_memory_info(gpu)["peak"] - before)

    return Stepping(step, memory, "peak of a step beside the weights" if gpu else "TensorFlow counts none on a CPU")
