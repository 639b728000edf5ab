"""What a search tried, as plain data of `Run.search`, and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nbopt.searching.finalists import RANDOM, UNTOUCHED, Finalist
from nbopt.searching.objective import EPOCHS, SECONDS
from nbopt.space import Dimension
from nbopt.studies import values_of
from nbopt.studies.opening import REASON

SHOWN_TRIALS = 200
"""Trials that a run keeps, the best ones; the study has them all."""

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned"}


def table_of(
    study: Any, space: Sequence[Dimension], what: str, finalists: Sequence[Finalist], chosen: Finalist, ended: str
) -> dict[str, Any]:
    """Return what was tried.

    Args:
        study: The study.
        space: Its dimensions.
        what: What a score is.
        finalists: What was trained again.
        chosen: What is gone on with.
        ended: Why the search ended before its trials were used up, or "".
    """
    rows = [
        {
            "number": trial.number,
            "values": plain(values_of(trial.params, space)),
            "score": trial.value if trial.state.name == "COMPLETE" else _last(trial),
            "state": _STATES.get(trial.state.name, "failed"),
            "epochs": int(trial.user_attrs.get(EPOCHS, 0)),
            "seconds": round(float(trial.user_attrs.get(SECONDS, 0.0)), 3),
            "reason": str(trial.user_attrs.get(REASON, "")),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]
    greater = study.direction.name == "MAXIMIZE"
    best_first = sorted(rows, key=lambda row: _rank(row, greater))
    kept = {row["number"] for row in best_first[:SHOWN_TRIALS]}
    return {
        "what": what,
        "greater": greater,
        "space": [each.text for each in space],
        "study": str(study.study_name),
        "trials": [row for row in rows if row["number"] in kept],
        "left_out": len(rows) - len(kept),
        "finalists": [_final(each) for each in finalists],
        "chosen": _final(chosen),
        "ended": ended,
    }


def notes_on(table: Mapping[str, Any], epochs: int) -> list[str]:
    """Return what a reader of a row must know of a search.

    Args:
        table: What `table_of` returned.
        epochs: Epochs of all trainings together.
    """
    trials, finals, chosen = table["trials"], table["finalists"], table["chosen"]
    states = [row["state"] for row in trials]
    aside = [
        f"{states.count(state)} {words}"
        for state, words in (("pruned", "ended early"), ("failed", "failed"))
        if state in states
    ]
    again = sum(len(final["scores"]) for final in finals)
    count = f"{len(trials) + table['left_out']} trainings"
    count += f" ({', '.join(aside)})" if aside else ""
    count += f" and {again} again with fresh seeds" if again else ", none of them again with fresh seeds"
    ended = f"; it ended early: {table['ended']}" if table["ended"] else ""
    notes = [f"searched {'; '.join(table['space'])}", f"{count}: {epochs:,} epochs in all{ended}"]
    start = next((final for final in finals if final["kind"] == UNTOUCHED), None)
    if chosen["kind"] == UNTOUCHED:
        notes.append("nothing that was tried was better than the untouched values, so they are kept")
    elif chosen["mean"] is None or start is None or start["mean"] is None:
        notes.append(f"chosen by one training: {words_of(chosen['values'])}")
    else:
        by = " (the random search's)" if chosen["kind"] == RANDOM else ""
        notes.append(
            f"chosen{by}: {words_of(chosen['values'])}; {table['what']} {chosen['mean']:.4g} against "
            f"{start['mean']:.4g} untouched, means over {len(chosen['scores'])} fresh seeds"
        )
    rival = next((final for final in finals if final["kind"] == RANDOM), None)
    if rival is not None and rival["mean"] is not None:
        notes.append(f"random search with as many trainings: {rival['mean']:.4g} with fresh seeds")
    return notes


def words_of(values: Mapping[str, Any]) -> str:
    """Return values as text: `learning_rate 0.003, optimizer adamw`."""
    return ", ".join(f"{name} {value:.3g}" if _real(value) else f"{name} {value}" for name, value in values.items())


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON data."""
    kinds = (str, int, float, type(None))
    return {name: value if isinstance(value, kinds) else str(value) for name, value in values.items()}


def _final(finalist: Finalist) -> dict[str, Any]:
    return {
        "kind": finalist.kind,
        "number": finalist.number,
        "values": plain(finalist.values),
        "found": finalist.found,
        "scores": [score if math.isfinite(score) else None for score in finalist.scores],
        "mean": finalist.mean,
    }


def _real(value: Any) -> bool:
    return isinstance(value, float)


def _rank(row: Mapping[str, Any], greater: bool) -> tuple[bool, float]:
    score = row["score"]
    return row["state"] != "complete", math.inf if score is None else (-score if greater else score)


def _last(trial: Any) -> float | None:
    """Return what a trial that was ended early had reported last."""
    values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
    return float(values[-1]) if values and math.isfinite(values[-1]) else None
