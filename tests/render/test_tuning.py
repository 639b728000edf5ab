"""A Tuning is readable as text, and in a notebook that nobody trusts."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbopt
from nbopt.render.tuning import html, sentence, text


def objective(trial: Any) -> float:
    x = trial.suggest_float("<b>x</b>", -1, 1)
    if trial.number == 3:
        raise ValueError("<script>alert(1)</script>")
    return float(-(x**2) + 0.01 * np.random.normal())  # noqa: NPY002 - what users draw from


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> nbopt.Tuning:
    storage = tmp_path_factory.mktemp("study") / "own.journal"
    start = {"<b>x</b>": 1.0}
    return nbopt.tune(objective, trials=20, start=start, storage=storage, study="<i>mine</i>", vs="random", price=1.0)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        assert not any(name.startswith("on") or name == "class" for name, _ in attrs)


def test_the_html_has_only_what_an_untrusted_notebook_keeps(tuning: nbopt.Tuning) -> None:
    page = html(tuning)
    tags = Tags()
    tags.feed(page)
    assert tags.found <= {
        "div",
        "b",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "span",
        "details",
        "summary",
        "img",
        "code",
    }
    assert page.count("data:image/svg+xml") == 4
    assert "<script>" not in page
    assert "<i>mine" not in page
    assert len(page) < 100_000


def test_both_forms_say_the_sentence_the_failures_and_the_rival(tuning: nbopt.Tuning) -> None:
    told = text(tuning)
    assert sentence(tuning) in told
    assert "over 5 fresh seeds with trial" in sentence(tuning)
    assert "over start" in sentence(tuning)
    assert "trial 3 failed: ValueError" in told
    assert "Random search, " in told
    assert "cost" in told
    for row in tuning.comparison.rows:
        assert row.name in told
    assert "1 failed" in html(tuning)


def test_it_is_what_a_notebook_shows(tuning: nbopt.Tuning) -> None:
    bundle = tuning._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert repr(tuning) == bundle["text/plain"]


def test_pictures_are_left_out_where_they_would_make_the_notebook_large(tuning: nbopt.Tuning) -> None:
    small = html(tuning, limit_bytes=8_000)
    assert small.count("data:image") < 4
    assert "left out" in small


def test_a_study_of_which_nothing_is_known_yet_is_shown(home: Path) -> None:
    import optuna

    assert "No trial has ended." in repr(nbopt.Tuning(optuna.create_study(study_name="new")))
    alone = nbopt.tune(lambda trial: 1.0, trials=1)
    assert "the best of 1: not re-run" in repr(alone)
    assert html(alone)
