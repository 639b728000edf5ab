"""Errors for people: what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a full disk, a used-up quota, and a limit on a file's size."""


class NbOptError(Exception):
    """Tell what was expected, what came instead, and what to do about it.

    Args:
        expected: What nbopt needed, in the user's terms.
        came: What it got.
        do: The next thing to try, if possible a line that can be pasted.

    Where an error stopped `optimize`, its `comparison` holds the rows that were measured by then.
    """

    comparison: Any = None

    def __init__(self, expected: str, came: str = "", do: str = "") -> None:
        self.expected, self.came, self.do = expected, came, do
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expected, self.came, self.do)

    @property
    def message(self) -> str:
        """Return the whole message, a line for each part."""
        if not self.came and not self.do:
            return self.expected
        lines = [f"expected: {self.expected}"]
        if self.came:
            lines.append(f"came: {self.came}")
        if self.do:
            lines.append(f"do: {self.do}")
        return "\n".join(lines)

    @property
    def one_line(self) -> str:
        """Return the message as a table's cell can hold it."""
        if not self.came and not self.do:
            return self.expected
        parts = [self.came or f"expected {self.expected}"]
        if self.do:
            parts.append(self.do)
        return ": ".join(parts)

    def _render_traceback_(self) -> list[str]:
        # IPython calls this instead of printing a traceback of nbopt's inside. A plain exception (not
        # UsageError, which nbmake and Papermill count as a cell that passed) still fails a batch run.
        return [f"{type(self).__name__}", *(f"  {line}" for line in self.message.splitlines())]


class ModelError(NbOptError):
    """The object is not a model that nbopt can take, or the model can't do what was asked."""


class DataError(NbOptError):
    """The data has a form, shape, type or content that can't be used."""


class OptionError(NbOptError):
    """An option or a technique is unknown, or its value is out of range."""


class ExportError(NbOptError):
    """A model could not be written for a runtime, or read back by it."""


class ArtifactError(NbOptError):
    """An exported file is missing, damaged, or written by a newer nbopt."""


class TrainingError(NbOptError):
    """A training diverged: its loss, or what the model gives after it, is no longer a number."""


class StudyError(NbOptError):
    """A search can't go on: its objective gives no number, or can't go to another process.

    `failed` says why its trials failed, where it was those.
    """

    failed: tuple[str, ...] = ()


class StoreError(NbOptError):
    """The folder that keeps runs can't be read or written; `run` is the run that found no place, where it was one."""

    run: Any = None


class GateFailed(NbOptError):
    """No run keeps within the limits that the user set; `comparison` holds the rows, to be shown first."""


class MissingExtra(NbOptError):
    """A package of an optional extra is not installed.

    Args:
        package: The package that failed to import.
        extra: The extra of nbopt that brings it.
        purpose: What it was needed for.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(
            f"{package}, for {purpose}",
            f"{package} is not installed",
            f'pip install "nbopt[{extra}]"',
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.package, self.extra, self.purpose)


class NbOptWarning(UserWarning):
    """Something that nbopt coped with and that the user should know."""


class Interrupted(KeyboardInterrupt):
    """The user interrupted; what was done is kept, and `comparison` holds it."""

    comparison: Any = None

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self}" if str(self) else "Interrupted"]


def disk_error(error: OSError, place: object, do: str = "") -> StoreError:
    """Return the message of a failed write: a full disk, or a place that can't be written.

    Args:
        error: What the system said.
        place: Where it was written to.
        do: What helps, beside free space.
    """
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return StoreError(f"room on the disk of {place}", reason, f"free some space{', or ' if do else ''}{do}")
    return StoreError("a place that can be written", f"{place}: {reason}", do or "choose another folder")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word nearest to `word`, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names)}"
