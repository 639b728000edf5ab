"""Optuna, which the extra `tune` brings: imported when a study is opened, never before."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nbopt.errors import MissingExtra

EXTRA = "tune"


def load() -> Any:
    """Return the package optuna.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise MissingExtra("optuna", EXTRA, "searching with trials") from error


def has(*packages: str) -> bool:
    """Tell whether packages that single samplers need are installed; none of them is imported."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from writing a line for each trial: progress and result say it. The user's level comes back."""
    logging = load().logging
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # `group=True` of TPE and others are marked experimental; what is used here is tested here.
            warnings.filterwarnings("ignore", category=load().exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(level)
