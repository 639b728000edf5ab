"""Keep out of the cell what libraries say while they quantize, and nothing of what other threads say meanwhile.

A job of the panel quantizes for minutes in a thread beside the kernel's main one, where cells run. `redirect_stdout`,
`catch_warnings` and a logger's level hold for the whole process, and two that overlap end in the wrong order: a cell's
prints would be lost, some of them for good. What is put in place here only asks which thread it is that speaks; what
others that replace the same things leave of it does nothing where no thread is muted.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class _Depth(threading.local):
    value = 0


_depth = _Depth()
_lock = threading.Lock()
_users = 0


def muted() -> bool:
    """Tell whether this thread is within `quiet`."""
    return _depth.value > 0


class _Stream:
    """Pass on to a stream what threads write that are not muted."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return len(text) if muted() else int(self.stream.write(text) or 0)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _WhileMuted(type):
    """Be the type of a category that every warning belongs to while its thread is muted, and none otherwise."""

    def __subclasscheck__(cls, other: type) -> bool:
        return muted()


class _Unheard(Warning, metaclass=_WhileMuted):
    """Stand in the filter that ignores."""


class _Records(logging.Filter):
    """Drop a muted thread's records below a level; elsewhere it does nothing, and so it may stay with its logger."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.level or not muted()


_from_errors, _critical = _Records(logging.ERROR), _Records(logging.CRITICAL)


@contextmanager
def quiet(*chatty: str, errors: tuple[str, ...] = ()) -> Iterator[None]:
    """Drop what this thread prints and warns of, what it logs below an error, and NumPy's remarks on its arithmetic.

    Args:
        chatty: Loggers, "" for the root's own records, that are heard from errors on.
        errors: Loggers of which errors are dropped too: they come as exceptions.
    """
    for names, records in ((chatty, _from_errors), (errors, _critical)):
        for name in names:
            logging.getLogger(name).addFilter(records)  # the same one again is added once
    _enter()
    _depth.value += 1
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _depth.value -= 1
        _leave()


def _enter() -> None:
    global _users
    with _lock:
        _users += 1
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Stream):
                setattr(sys, name, _Stream(stream))
        warnings.simplefilter("ignore", _Unheard)


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users:
            return
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, _Stream):
                setattr(sys, name, stream.stream)
        warnings.filters = [each for each in warnings.filters if each[2] is not _Unheard]
