"""What a technique is: a frozen dataclass whose fields are its options."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from nbopt.draft import Context, Draft
from nbopt.errors import DataError
from nbopt.options import check_value, described
from nbopt.workload import Workload


@dataclass(frozen=True)
class Technique:
    """Be the base of the eight: subclasses are frozen dataclasses, one a file of `nbopt.techniques`."""

    word: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    body: ClassVar[Literal["model", "objective", "candidate"]] = "model"
    """What the body of a cell with it is: its value the model, or run once a trial, its value the score, or an
    untrained model: then it is the option `build`."""
    beside_everywhere: ClassVar[bool] = False
    """What stands beside it is measured on every runtime, since its latency counts; else on one, for its quality."""
    times: ClassVar[bool] = False
    """It times something in this kernel, so that nothing may be started beside it."""
    works_on_files: ClassVar[bool] = False
    """It changes the exported file, so that at its defaults it neither trains nor needs data to train on."""

    needs_train: ClassVar[str] = ""
    """What it does with train data where it can't do without, as a message says it: "which tune trains on"."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            check_value(f"{self.word} --{spec.name.replace('_', '-')}", spec, getattr(self, spec.name))

    def beside(self) -> tuple[Technique, ...]:
        """Return what must stand beside it in the table, each in its place in the same recipe; nothing by default."""
        return ()

    def check(self, workload: Workload) -> None:
        """Refuse at once, before anything is measured, options that don't go together or that have nothing to work on.

        Raises:
            OptionError: Options don't go together.
            DataError: There is no train data where the technique trains.
        """
        if self.needs_train and workload.train is None:
            raise DataError(f"train data, {self.needs_train}", "none", "Workload(..., train=...), --train train_dl")

    def apply(self, draft: Draft, context: Context) -> Draft:
        """Return the draft with this technique in it.

        Raises:
            ModelError: The technique can't be used on this model; the message says why.
        """
        raise NotImplementedError

    @property
    def label(self) -> str:
        """Return a few words for a table: the technique and the options that differ from the default."""
        return f"{self.word} {' '.join(self.options_text())}".strip()

    def options_text(self) -> list[str]:
        """Return the options that differ from their default, as a command line writes them."""
        words: list[str] = []
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if _same(value, spec.default):
                continue
            flag = "--" + spec.name.replace("_", "-")
            if value is True:
                words.append(flag)
            elif value is False:
                words.append(f"--no-{flag[2:]}")
            elif isinstance(value, (tuple, list)):
                words += [flag, ",".join(map(_plain, value))]
            else:
                words += [flag, _plain(value)]
        return words

    def text(self) -> str:
        """Return the technique as one line of a recipe."""
        return " ".join([self.word, *self.options_text()])


def _same(value: Any, default: Any) -> bool:
    """Tell whether a value is the default; models and arrays, which compare in ways of their own, are by identity."""
    return value is default or (isinstance(value, (*_PLAIN, tuple)) and bool(value == default))


def _plain(value: Any) -> str:
    """Return a value as a table writes it: of a model or an array its type, whose own text would fill the table."""
    return str(value) if isinstance(value, _PLAIN) or value is None else described(value)


_PLAIN = (str, int, float, np.number)
