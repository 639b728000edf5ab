"""Keep the chatter of native libraries off the user's screen."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_CHATTY = ("absl", "tensorflow", "tf2onnx", "root")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to stdout and stderr, also by native code, and drop warnings and log records.

    Errors still travel as exceptions. Output of other threads is dropped too, so keep the block short.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(tempfile.TemporaryFile())
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(sink.fileno(), descriptor)
        text = io.StringIO()
        stack.enter_context(contextlib.redirect_stdout(text))
        stack.enter_context(contextlib.redirect_stderr(text))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger, level in zip(loggers, levels, strict=True):
            stack.callback(logger.setLevel, level)
            logger.setLevel(logging.CRITICAL)
        yield
