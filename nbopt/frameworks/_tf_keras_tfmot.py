"""TF-MOT, imported without what its import does to the process."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from nbopt.errors import MissingExtra
from nbopt.frameworks._quiet import quiet

PACKAGE = "tensorflow_model_optimization"
SETTING = "TF_USE_LEGACY_KERAS"


def has_tfmot() -> bool:
    """Tell whether TF-MOT is installed."""
    return find_spec(PACKAGE) is not None


def tfmot(need: str) -> Any:
    """Return TF-MOT.

    Importing 0.8.1 sets TF_USE_LEGACY_KERAS=1 for the whole process, so that a `tf.keras` that is used later for the
    first time would be another one than the user has it for, in child processes too. So `tf.keras` is resolved before,
    by the user's own settings, and the variable put back after.

    Args:
        need: What it is for, in the words of an error.

    Raises:
        MissingExtra: It is not installed.
    """
    if not has_tfmot():
        raise MissingExtra(PACKAGE, "tf-keras", need)
    import tensorflow as tf

    before = os.environ.get(SETTING)
    try:
        with quiet():
            tf.keras.layers  # noqa: B018 - a lazy module, which reads the setting when it is first looked into
            import tensorflow_model_optimization as package
    finally:
        os.environ.pop(SETTING, None)
        if before is not None:
            os.environ[SETTING] = before
    return package
