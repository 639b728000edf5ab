"""What a search tried, as text and as what an untrusted notebook keeps."""

from __future__ import annotations

from typing import Any

from nbopt.render.rates import range_html, range_text
from nbopt.render.search import course, search_html, search_text


def row(number: int, score: float | None, state: str = "complete", reason: str = "") -> dict[str, Any]:
    values = {"learning_rate": 0.001 * (number + 1), "kind<b>": "a"}
    return {
        "number": number,
        "values": values,
        "score": score,
        "state": state,
        "epochs": 3,
        "seconds": 1.0,
        "reason": reason,
    }


FOUND: dict[str, Any] = {
    "what": "accuracy on valid",
    "greater": True,
    "space": ["learning_rate 0.0001 to 0.01 (log)"],
    "study": "digits: tune",
    "trials": [row(0, 0.8), row(1, 0.9), row(2, 0.5, "pruned"), row(3, None, "failed", "TrainingError: <b>NaN")],
    "left_out": 2,
    "finalists": [
        {"kind": "untouched", "number": 0, "values": {}, "found": 0.8, "scores": [0.81, 0.79], "mean": 0.8},
        {"kind": "finalist", "number": 1, "values": {}, "found": 0.9, "scores": [0.88, None], "mean": None},
    ],
    "chosen": {"kind": "untouched", "number": 0},
    "ended": "",
}


def test_the_best_trial_comes_first_and_what_failed_says_why() -> None:
    lines = search_text(FOUND).splitlines()
    assert lines[1].split()[:2] == ["trial", "learning_rate"]
    assert lines[2].split()[0] == "1"
    assert lines[3].startswith("0 (untouched)")
    assert lines[3].endswith("chosen")
    assert "ended early" in lines[4]
    assert "NaN" in lines[5]
    assert "with fresh seeds" in lines
    assert lines[-2] == "2 worse trials are left out"


def test_html_has_a_picture_bars_and_escapes() -> None:
    html = search_html(FOUND)
    assert "<b>" not in html
    assert "<script" not in html
    assert html.count("inline-block") == 4
    assert "data:image/svg+xml" in html
    assert "first 0.8, best 0.9" in course(FOUND)


def test_a_metric_of_which_less_is_better_is_ranked_so() -> None:
    lines = search_text({**FOUND, "greater": False}).splitlines()
    assert lines[2].startswith("0 (untouched)")


def test_nothing_searched_is_nothing_shown() -> None:
    assert search_text({}) == search_html({}) == range_html({}) == range_text({}) == ""


def test_a_range_test_is_shown_alone_or_above_the_trials() -> None:
    tested = {"rates": [1e-4, 1e-3, 1e-2, 1e-1], "losses": [2.0, 1.5, 1.0, None], "suggested": 1e-3, "reason": "a <b>"}
    alone = {"range": tested}
    assert search_text(alone) == range_text(tested)
    assert "0.001" in search_text(alone)
    assert search_html(alone) == range_html(tested)
    assert "<b>" not in range_html(tested)
    assert search_html({**FOUND, **alone}).startswith(range_html(tested))


def test_many_trials_stay_small() -> None:
    many = {**FOUND, "trials": [row(number, 0.5 + number / 1000) for number in range(200)]}
    assert len(search_html(many, rows=10)) < 30_000
    assert "192 worse trials" in search_text(many, rows=10)
