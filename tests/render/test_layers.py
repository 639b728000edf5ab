"""An audit as a table: aligned in a terminal, and in markup that an untrusted notebook keeps."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from nbopt.measurement.audit import audit_of
from nbopt.render.layers import counted, layers_html, layers_text
from nbopt.runtimes import Layer

LAYERS = [
    Layer("features.0", "Conv", "float32", "float32", (16, 1, 3, 3), 144, 0, 9_216),
    Layer("features.4", "Conv", "float32", "float32", (32, 16, 3, 3), 4_608, 2_304, 73_728),
    Layer("attention", "MatMul", "", "float32", (), 0, 0, 1_152),
    Layer("head", "Linear", "int8", "int8 dynamic", (128, 10), 1_280, 0, 1_280, "the runtime says so"),
]
AUDIT = audit_of(LAYERS).to_dict()


def test_text_has_a_line_for_each_layer_under_aligned_heads() -> None:
    summary, head, *rows, note = layers_text(AUDIT).splitlines()
    assert summary.startswith("85.4 k multiply-accumulates a row")
    assert "they run in float32 98.5%, int8 1.5%" in summary
    assert "38.2% of 6.03 k weights are zero" in summary
    assert [row.split()[0] for row in rows] == [layer.name for layer in LAYERS]
    for title, word in (("runs in", "int8 dynamic"), ("shape", "128x10"), ("MACs", "1.5%")):
        assert rows[3].index(word) == head.index(title)
    assert "50.0%" in rows[1]
    assert note == "head: the runtime says so"


def test_a_narrow_terminal_shortens_names_only() -> None:
    long = [Layer("a.very.long.name.of.a.layer." * 3, "Linear", "float32", "float32", (10, 10), 100, 0, 100)]
    audit = audit_of(long).to_dict()
    table = layers_text(audit, width=80).splitlines()[1:]
    assert all(len(line) <= 80 for line in table)
    assert "10x10" in table[1]
    assert ".." in table[1]


def test_html_holds_the_same_and_marks_what_runs_otherwise() -> None:
    page = layers_html(AUDIT)
    text = re.sub(r"<[^>]+>", " ", page)
    for word in ("features.4", "16\N{MULTIPLICATION SIGN}1\N{MULTIPLICATION SIGN}3", "int8 dynamic", "1.5%"):
        assert word in text
    assert "<b>int8 dynamic</b>" in page
    assert "<b>float32</b>" not in page
    bars = [int(width) for width in re.findall(r"width:(\d+)px;height:9px", page)]
    assert bars == [9, 69, 1, 1]
    assert "height:9px" not in layers_html(AUDIT, pictures=False)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_is_what_an_untrusted_notebook_keeps_and_all_text_is_escaped() -> None:
    bad = '<script>alert(1)</script>" onload="x'
    layers = [Layer(bad, bad, bad, bad, (2, 2), 4, 0, 4, bad)]
    audit = audit_of(layers, [bad]).to_dict()
    page = layers_html(audit)
    assert "<script" not in page
    parsed = Tags()
    parsed.feed(page)
    assert not parsed.open
    assert parsed.seen <= {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "b"}
    assert parsed.attributes <= {"style", "title"}
    assert "an error of nbopt&#x27;s" in page
    assert "an error of nbopt's" in layers_text(audit)


def test_of_many_layers_the_largest_are_shown_and_the_others_counted() -> None:
    layers = [Layer(f"layer{i}", "Linear", "float32", "float32", (1, 1), 1, 0, i) for i in range(300)]
    audit = audit_of(layers).to_dict()
    text = layers_text(audit, rows=10)
    assert [line.split()[0] for line in text.splitlines()[2:12]] == [f"layer{i}" for i in range(290, 300)]
    share = 100 * sum(range(290)) / sum(range(300))
    assert text.splitlines()[-1] == f"290 smaller layers are left out, with {share:.1f}% of the MACs"
    assert "290 smaller layers" in layers_html(audit, rows=10)
    assert len(layers_html(audit).encode()) < 60_000


@pytest.mark.parametrize("audit", [{}, {"layers": 3}, {"layers": [{"name": 1}]}, {"layers": "none"}])
def test_nothing_is_shown_where_nothing_can_be_read(audit: dict[str, object]) -> None:
    assert layers_text(audit) == ""
    assert layers_html(audit) == ""


def test_why_an_artifact_was_not_audited_is_told() -> None:
    assert layers_text({"unread": "no reader for it"}) == "not audited: no reader for it"
    assert "not audited: no reader for it" in layers_html({"unread": "no reader for it"})


def test_a_model_without_products_has_no_shares() -> None:
    audit = audit_of([Layer("table", "Embedding", "int8", "int8", (50, 16), 800, 8, 0)]).to_dict()
    assert layers_text(audit).splitlines()[-1].split() == ["table", "Embedding", "50x16", "int8", "int8", "1.0%", "-"]
    assert "height:9px" not in layers_html(audit)


@pytest.mark.parametrize(("number", "said"), [(0, "0"), (999, "999"), (1_500, "1.50 k"), (3_200_000_000, "3.20 G")])
def test_counts_are_written_short(number: int, said: str) -> None:
    assert counted(number) == said
