"""Of all that a model returns one output is judged, however it is wrapped."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from nbopt.errors import ModelError
from nbopt.frameworks._primary import passed_over, primary_output

SCORES, HIDDEN = np.ones((2, 3)), np.zeros((2, 5))


@dataclass
class Fields:
    loss: Any
    hidden: Any
    logits: Any


class Named(NamedTuple):
    hidden: Any
    logits: Any


class WithKeys:
    hidden, logits = HIDDEN, SCORES

    def keys(self) -> list[str]:
        return ["hidden", "logits"]


@pytest.mark.parametrize(
    "result",
    [
        SCORES,
        (SCORES, HIDDEN),
        [SCORES],
        (None, SCORES),
        ({"hidden": HIDDEN, "logits": SCORES}, HIDDEN),
        {"hidden": HIDDEN, "output": SCORES},
        {"loss": None, "scores": SCORES},
        UserDict({"hidden": HIDDEN, "logits": SCORES}),
        Fields(None, HIDDEN, SCORES),
        Named(HIDDEN, SCORES),
        WithKeys(),
    ],
    ids=lambda result: type(result).__name__,
)
def test_the_scores_are_found(result: Any) -> None:
    assert primary_output(result) is SCORES


@pytest.mark.parametrize("result", [None, (None, None), {}, 3.0, SimpleNamespace(logits=SCORES)])
def test_what_holds_no_array_is_refused(result: Any) -> None:
    with pytest.raises(ModelError, match="wrap it in a module"):
        primary_output(result)


@pytest.mark.parametrize(
    "result", [SCORES, [SCORES], (None, SCORES), {"hidden": HIDDEN, "output": SCORES}, Named(HIDDEN, SCORES), None]
)
def test_nothing_is_said_of_one_output_or_of_one_that_is_named(result: Any) -> None:
    assert passed_over(result) == ""


def test_what_is_chosen_by_its_place_alone_is_said() -> None:
    assert passed_over((HIDDEN, SCORES)) == "the model returns (2, 5) and (2, 3): the first is judged, and exported"
    told = passed_over({"loss": None, "gates": HIDDEN, "scores": SCORES})
    assert told == "the model returns gates (2, 5) and scores (2, 3): the first is judged, and exported"
