"""Searching with trials: an ordinary Optuna study, opened, run, ended; below every technique that searches.

Nothing here imports Optuna before a study is opened; it is the extra `tune`.
"""

from __future__ import annotations

from nbopt.studies.choosing import Running
from nbopt.studies.ending import Budget, expected_gain
from nbopt.studies.opening import Opened, journal_file, open_study
from nbopt.studies.pruners import PRUNERS, pruner_of
from nbopt.studies.running import Ended, run_study
from nbopt.studies.samplers import SAMPLERS, Problem, sampler_of
from nbopt.studies.suggesting import defaults, distributions, draw, values_of
from nbopt.studies.trials import best_of, seeded

__all__ = [
    "PRUNERS",
    "SAMPLERS",
    "Budget",
    "Ended",
    "Opened",
    "Problem",
    "Running",
    "best_of",
    "defaults",
    "distributions",
    "draw",
    "expected_gain",
    "journal_file",
    "open_study",
    "pruner_of",
    "run_study",
    "sampler_of",
    "seeded",
    "values_of",
]
