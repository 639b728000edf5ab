"""A scan of layers as text and as what an untrusted notebook keeps."""

from __future__ import annotations

from nbopt.render.sensitivity import sensitivity_html, sensitivity_text

SCAN = {
    "what": "accuracy lost on valid when one layer alone is pruned",
    "levels": [0.25, 0.5],
    "layers": {"body.<b>": [0.001, 0.02], "stem": [0.1, 0.3], "odd": [0.1]},
    "chosen": {"body.<b>": 0.7, "stem": 0.1},
    "left_out": 3,
}
MIXED = {"what": "error of one layer in int8", "layers": {"a": 0.5, "b": float("nan")}, "kept": ["a"]}


def test_the_most_sensitive_layer_comes_first() -> None:
    text = sensitivity_text(SCAN).splitlines()
    assert text[0] == SCAN["what"]
    assert text[1].split() == ["layer", "at", "25%", "at", "50%", "pruned"]
    assert text[2].split() == ["stem", "0.1000", "0.3000", "10%"]
    assert "70%" in text[3]
    assert "left out" in text[-1]


def test_one_figure_a_layer_and_what_was_kept() -> None:
    assert sensitivity_text(MIXED).splitlines()[2].split() == ["a", "0.5000", "kept"]


def test_html_has_bars_and_escapes_names() -> None:
    html = sensitivity_html(SCAN)
    assert "<b>" not in html.replace("body.&lt;b&gt;", "")
    assert html.count("inline-block") == 4
    assert "<script" not in html
    assert len(html) < 10_000


def test_nothing_measured_is_nothing_shown() -> None:
    assert sensitivity_text({}) == sensitivity_html({}) == ""


def test_a_large_scan_stays_small() -> None:
    many = {"what": "x", "levels": [0.25, 0.5, 0.75], "layers": {f"layer{i}": [0.1, 0.2, i / 1000] for i in range(500)}}
    assert len(sensitivity_html(many, rows=10)) < 12_000
    assert "490 less sensitive" in sensitivity_html(many, rows=10)
