"""Messages say what was expected, what came and what to do, in every place where they are read."""

from __future__ import annotations

import inspect
import pickle

import pytest

from nbopt import errors
from nbopt.errors import Interrupted, MissingExtra, NbOptError, nearest

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, NbOptError) and kind is not MissingExtra
]


def test_a_message_has_three_lines() -> None:
    error = NbOptError("a number", "a word", "--epochs 1")
    assert str(error) == "expected: a number\ncame: a word\ndo: --epochs 1"
    assert error.one_line == "a word: --epochs 1"


def test_parts_that_are_not_known_leave_no_empty_line() -> None:
    assert str(NbOptError("it is not here")) == "it is not here"
    assert NbOptError("it is not here").one_line == "it is not here"
    assert str(NbOptError("a number", do="give one")) == "expected: a number\ndo: give one"
    assert NbOptError("a number", do="give one").one_line == "expected a number: give one"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_from_another_process(kind: type[NbOptError]) -> None:
    error = kind("a number", "a word", "--epochs 1")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)


def test_a_missing_extra_names_the_pip_command_and_survives_too() -> None:
    error = MissingExtra("onnxruntime", "torch", "export to ONNX")
    assert 'pip install "nbopt[torch]"' in str(error)
    assert "onnxruntime is not installed" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_notebook_shows_the_message_without_the_inside_of_nbopt() -> None:
    lines = NbOptError("a number", "a word", "--epochs 1")._render_traceback_()
    assert lines == ["NbOptError", "  expected: a number", "  came: a word", "  do: --epochs 1"]
    assert Interrupted("2 rows are kept")._render_traceback_() == ["Interrupted: 2 rows are kept"]
    assert Interrupted()._render_traceback_() == ["Interrupted"]


def test_an_interrupt_still_stops_run_all() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("quantise", "did you mean 'quantize'?"),
        ("prun", "did you mean 'prune'?"),
        ("xyzzy", "one of: distill, prune, quantize"),
    ],
)
def test_the_nearest_word_is_suggested(word: str, hint: str) -> None:
    assert nearest(word, ["quantize", "prune", "distill"]) == hint
