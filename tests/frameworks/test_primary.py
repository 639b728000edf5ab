"""Of all that a model returns one output is judged, however it is wrapped."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from nbopt.errors import ModelError
from nbopt.frameworks._primary import primary_output

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
