from __future__ import annotations

import re

import pytest

from nbopt.render.details import details_of
from nbopt.render.sensitivity import sensitivity_html, sensitivity_text
from nbopt.render.view import views
from tests.render.sample_runs import EVERYTHING, run_of

BODY = {"what": "error of the outputs", "layers": {"a<b>": 0.1, "conv": 0.4, "head": 0.2}, "kept": ["conv"]}


def test_the_longest_bar_is_of_the_most_sensitive_layer_and_what_stays_float_is_said() -> None:
    text = sensitivity_text(BODY)
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    lengths = {name: line.count("#") for name, line in lines.items()}
    assert lengths["conv"] == max(lengths.values()) == 2 * lengths["head"] == 4 * lengths["a<b>"]
    assert [name for name, line in lines.items() if "stays float" in line] == ["conv"]
    html = sensitivity_html(BODY)
    widths = list(map(int, re.findall(r"width:(\d+)px", html)))
    assert widths == [40, 160, 80]
    assert html.count("stays float") == 1
    assert "a<b>" not in html
    assert "a&lt;b&gt;" in html


@pytest.mark.parametrize("body", [{}, {"layers": {}}, {"layers": 3}, {"layers": {"x": float("nan")}}])
def test_nothing_and_nonsense_are_no_picture_or_an_empty_one(body: dict) -> None:
    assert isinstance(sensitivity_html(body), str)
    assert sensitivity_text(body).count("#") <= 1


def test_only_the_most_sensitive_are_shown() -> None:
    body = {"what": "error", "layers": {f"layer{i}": i for i in range(100)}, "kept": []}
    text = sensitivity_text(body, rows=5)
    assert "95 less sensitive layers are left out" in text
    assert "layer99" in text
    assert "layer94" not in text


def test_the_details_of_a_run_hold_it() -> None:
    run = run_of("quantize/onnxruntime", sensitivity=BODY)
    view = next(iter(views(type(EVERYTHING)([run]))))
    assert "stays float" in details_of(view)
