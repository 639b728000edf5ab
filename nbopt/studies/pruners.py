"""Pruners by their words: which unpromising trials end before their last step."""

from __future__ import annotations

from typing import Any

from nbopt.errors import OptionError, nearest
from nbopt.studies.extra import load, quiet

PRUNERS = ("auto", "median", "hyperband", "wilcoxon", "none")

MANY_TRIALS = 100
"""From here on Hyperband: its brackets share the trials out among them, and a sampler learns in each anew."""

STARTUP_TRIALS = 5
WARMUP_STEPS = 1


def choose(trials: int, objectives: int = 1) -> str:
    """Return the pruner that suits a search.

    Median needs few trials to know what is usual. Hyperband (Li et al. 2018) gives many settings a short try, and
    pays with many trials. Wilcoxon is for reports on instances in the same order (folds of a cross-validation)
    and so is never chosen here: only the user knows what a step is. Optuna prunes no search of several objectives.
    """
    if objectives > 1:
        return "none"
    return "hyperband" if trials >= MANY_TRIALS else "median"


def pruner_of(word: Any, *, trials: int, objectives: int = 1) -> Any:
    """Return a pruner.

    Args:
        word: One of `PRUNERS`; "auto" is `choose`. A pruner object of Optuna is taken as it is.
        trials: Trials of the search.
        objectives: Objectives of the search.

    Raises:
        OptionError: There is no such pruner, or none for several objectives.
    """
    if not isinstance(word, str):
        return word
    if word not in PRUNERS:
        raise OptionError(f"a pruner among {', '.join(PRUNERS)}", repr(word), nearest(word, PRUNERS))
    if word == "auto":
        word = choose(trials, objectives)
    if objectives > 1 and word != "none":
        raise OptionError("no pruner with several objectives", f"{word}", "--pruner none: Optuna prunes by one value")
    pruners = load().pruners
    if word == "median":
        return pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_STEPS)
    if word == "hyperband":
        return pruners.HyperbandPruner()
    with quiet():  # Wilcoxon's is marked experimental
        return pruners.WilcoxonPruner() if word == "wilcoxon" else pruners.NopPruner()
