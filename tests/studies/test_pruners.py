"""Pruners go by the trials and the scores of a search."""

from __future__ import annotations

import optuna
import pytest

from nbopt.errors import OptionError
from nbopt.studies.pruners import PRUNERS, choose, pruner_of


@pytest.mark.parametrize("word", PRUNERS)
def test_each_word_is_a_pruner(word: str) -> None:
    assert isinstance(pruner_of(word, trials=60), optuna.pruners.BasePruner)


def test_pruners_go_by_trials_and_objectives() -> None:
    assert [choose(20), choose(200), choose(200, 2)] == ["median", "hyperband", "none"]
    with pytest.raises(OptionError):
        pruner_of("median", trials=10, objectives=2)
    with pytest.raises(OptionError, match="median"):
        pruner_of("mediam", trials=10)
