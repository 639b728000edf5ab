"""Starting from what earlier studies of the same workload found best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbopt.errors import OptionError, nearest
from nbopt.studies.extra import load, quiet
from nbopt.studies.opening import KEY, Opened
from nbopt.studies.suggesting import contains

NONE, AUTO = "none", "auto"

MOST = 3
"""Settings taken over at most: a new study shall not only repeat the old one."""


def earlier_best(
    opened: Opened, space: Mapping[str, Any], source: str = AUTO, most: int = MOST
) -> list[dict[str, Any]]:
    """Return the best settings of earlier studies in the same storage that fit a space, best of each study first.

    Args:
        opened: The study that shall start from them.
        space: Its distributions by name; a setting fits where it names the same parameters, within their ranges.
        source: "auto" for all studies of the same workload, "none", or the name of one study.
        most: Settings at most.

    Raises:
        OptionError: There is no study of that name.
    """
    if source == NONE:
        return []
    optuna = load()
    with quiet():
        names = [name for name in optuna.get_all_study_names(opened.storage) if name != opened.name]
        if source != AUTO:
            if source not in names:
                hint = nearest(source, names) if names else "warm='auto'"
                raise OptionError("the name of a study in this storage", repr(source), hint)
            names = [source]
        key = opened.study.user_attrs.get(KEY)
        ranked = []
        for name in reversed(names):
            study = optuna.load_study(study_name=name, storage=opened.storage, sampler=opened.study.sampler)
            if study.directions != opened.study.directions:
                continue
            if source != AUTO or (key and study.user_attrs.get(KEY) == key):
                ranked.append(_best_of(study, space))
    found: list[dict[str, Any]] = []
    for place in range(max(map(len, ranked), default=0)):
        for settings in ranked:
            if place < len(settings) and settings[place] not in found:
                found.append(settings[place])
    return found[:most]


def _best_of(study: Any, space: Mapping[str, Any]) -> list[dict[str, Any]]:
    complete = study.get_trials(deepcopy=False, states=(load().trial.TrialState.COMPLETE,))
    fitting = [
        trial
        for trial in complete
        if trial.params.keys() == space.keys()
        and all(contains(space[name], value) for name, value in trial.params.items())
        and all(value <= 0 for value in trial.constraints.values())
    ]
    if len(study.directions) > 1:
        front = {trial.number for trial in study.best_trials}
        return [trial.params for trial in fitting if trial.number in front]
    greater = study.direction == load().study.StudyDirection.MAXIMIZE
    return [trial.params for trial in sorted(fitting, key=lambda trial: trial.value, reverse=greater)]
