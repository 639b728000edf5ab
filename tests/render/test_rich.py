"""The HTML form uses only what an untrusted notebook keeps, and escapes all that a user wrote."""

from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt import render
from nbopt.comparison import Comparison
from nbopt.render.figures import one_line
from nbopt.render.pictures import COLOURS, LEGEND
from nbopt.render.rich import LIMIT_BYTES
from tests.render.sample_runs import (
    BASELINE,
    EVERYTHING,
    HOSTILE,
    INT8,
    NOTHING_WINS,
    any_comparison,
    run_of,
    with_metric,
    without_labels,
)

TAGS = {
    "b", "br", "code", "details", "div", "img", "span", "summary", "table", "tbody", "td", "th", "thead", "tr",
}  # fmt: skip
ATTRIBUTES = {"alt", "colspan", "height", "src", "style", "title", "width"}
STYLES = {
    "border-bottom", "border-collapse", "background", "color", "display", "font-size", "font-weight", "line-height",
    "margin", "max-width", "min-width", "opacity", "overflow-x", "padding", "table-layout", "text-align",
    "vertical-align", "white-space", "width",
}  # fmt: skip
VOID = {"br", "img"}


class Page(HTMLParser):
    """Read a page: its text, its pictures, and whether every tag is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.alts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS
        for name, value in attrs:
            assert name in ATTRIBUTES
            assert value is not None
            if name == "style":
                for rule in value.split(";"):
                    key, _, setting = rule.partition(":")
                    assert key in STYLES
                    assert re.fullmatch(r"[-#%(),.\w ]+", setting)
            if name == "src":
                head, data = value.split(",")
                assert head == "data:image/svg+xml;base64"
                assert base64.b64decode(data).startswith(b"<svg ")
            if name == "alt":
                assert value
                self.alts.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def test_what_a_reader_sees() -> None:
    page = Page(render.html(EVERYTHING))
    assert page.text.startswith("3.1× faster [3.0, 3.3], 3.9× smaller, accuracy the same −0.1 pt [−0.3, +0.1]")
    for expected in (
        "Of the 3.1×, the runtime gives 1.9× and quantize int8 static 1.6×.",
        "realised precision",
        "float32 · 50% zeros",
        "failed: operator X is not supported: export float",
        "[1] calibrated on 512 rows of train",
        "[2] zeros do not help dense kernels",
        "%optimize export quantize/openvino model",
        "p90 0.16 ms",
        "throughput 9000 rows/s at batch 32",
        "deflated 1.24 MB",
        "peak memory 50.0 MB",
        "p = 0.21",
        "same prediction as the baseline on 98.71% of rows",
        "largest output error 0.31",
        "wall/CPU 1.01",
        "onnxruntime 1.32.0",
    ):
        assert expected in page.text


def test_a_speedup_that_the_machine_left_open_has_no_bar() -> None:
    left_open = dataclasses.replace(INT8, speedup_low=0.0, speedup_high=None)
    above = dataclasses.replace(INT8, speedup_high=None)
    slower = dataclasses.replace(INT8, speedup=0.5, speedup_low=0.4, speedup_high=None)
    alts = [Page(render.html(Comparison([BASELINE, run]))).alts for run in (INT8, left_open, above, slower)]
    assert len(alts[1]) == len(alts[3]) == len(alts[0]) - 1
    assert not any("technique" in alt for alt in alts[1] + alts[3])
    assert any("3.1x [3.0, ∞]" in alt for alt in alts[2])


def test_a_speedup_whose_parts_are_not_known_is_credited_to_nobody() -> None:
    unsplit = dataclasses.replace(INT8, speedup_runtime=None, speedup_technique=None)
    pictures = [render.html(Comparison([BASELINE, run])) for run in (INT8, unsplit)]
    coloured = [
        sum(LEGEND["technique"] in base64.b64decode(part).decode() for part in re.findall(r"base64,([\w+/=]+)", each))
        for each in pictures
    ]
    assert coloured[0] > coloured[1] == 0
    assert not any("technique" in alt for alt in Page(pictures[1]).alts)


def test_pictures_say_their_figures() -> None:
    alts = Page(render.html(EVERYTHING)).alts
    assert "-0.1 pt [-0.3, +0.1]" in alts
    assert "3.1x [3.0, 3.3]: runtime 1.9x, technique 1.6x" in alts


def test_only_the_best_row_is_tinted() -> None:
    assert render.html(EVERYTHING).count("rgba(31,146,84,0.13)") == 1
    assert "rgba(31,146,84,0.13)" not in render.html(NOTHING_WINS)


def test_when_nothing_wins() -> None:
    page = Page(render.html(NOTHING_WINS))
    assert page.text.startswith("Nothing beats the baseline: keep it")
    assert "%optimize export" not in page.text


def test_a_metric_without_bounds() -> None:
    page = Page(render.html(Comparison([with_metric(BASELINE), with_metric(INT8)])))
    assert "RMSE the same +0.004 [−0.004, +0.012]" in page.text
    assert "change, pt" not in page.text


def test_without_labels() -> None:
    page = Page(render.html(Comparison([without_labels(BASELINE), without_labels(INT8)])))
    assert "agreement" in page.text
    assert "98.71%" in page.text


def test_a_lost_model_is_an_arrow_at_the_edge() -> None:
    lost = run_of("quantize/openvino", quality=0.4, delta=(-0.51, -0.52, -0.5), speedup=(3, 2.9, 3.1))
    html = render.html(Comparison([BASELINE, lost]))
    pictures = [base64.b64decode(data).decode() for data in re.findall(r"base64,([^\"]+)", html)]
    assert any("L8 2V12Z" in picture and COLOURS["bad"] in picture for picture in pictures)
    assert COLOURS["bad"] in html


def test_what_a_user_wrote_is_escaped() -> None:
    runs = [
        dataclasses.replace(
            run, name=f"{HOSTILE}{i}", label=HOSTILE, reason=HOSTILE, notes=(HOSTILE,), dtype=HOSTILE,
            runtime=HOSTILE, metric=HOSTILE, workload=HOSTILE, split=HOSTILE, framework=HOSTILE,
            environment={HOSTILE: HOSTILE},
        )
        for i, run in enumerate(EVERYTHING)
    ]  # fmt: skip
    html = render.html(Comparison(runs))
    assert "<script" not in html
    assert one_line(HOSTILE) in Page(html).text


@settings(max_examples=60)
@given(any_comparison)
def test_any_runs_give_a_clean_page(comparison: Comparison) -> None:
    html = render.html(comparison)
    Page(html)
    assert len(html.encode()) <= LIMIT_BYTES


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_any_card_is_clean(pairs: list[tuple[str, str]]) -> None:
    bundle = render.workload_card(pairs)
    page = Page(bundle["text/html"])
    for name, value in pairs:
        assert one_line(name, 60) in page.text
        assert one_line(value, 600) in page.text


def test_the_card_as_text() -> None:
    bundle = render.workload_card([("model", "FashionCNN, 337,000 parameters"), ("train", "60,000 rows")])
    assert bundle["text/plain"] == "model  FashionCNN, 337,000 parameters\ntrain  60,000 rows"


def test_sixty_runs_keep_every_figure() -> None:
    html = render.html(Comparison([BASELINE, *_many(60)]))
    assert len(html.encode()) <= LIMIT_BYTES
    assert "quantize int8 59" in Page(html).text


@pytest.mark.parametrize(("count", "words"), [(150, "the details of each run"), (2500, "rows")])
def test_what_is_left_out_is_said(count: int, words: str) -> None:
    html = render.html(Comparison([BASELINE, *_many(count)]))
    assert len(html.encode()) <= LIMIT_BYTES
    assert "Left out to keep the notebook small: the details of each run" in Page(html).text
    assert words in Page(html).text


def test_too_many_workloads() -> None:
    runs = [dataclasses.replace(run, workload_key=run.name) for run in _many(400)]
    html = render.html(Comparison(runs), limit_bytes=20_000)
    assert len(html.encode()) <= 20_000


def _many(count: int) -> list:
    return [
        run_of(
            f"quantize/openvino#{i}", f"quantize int8 {i}", delta=(-0.001, -0.003, 0.001), speedup=(3.1, 3.0, 3.3),
            factors=(1.9, 1.6), notes=("calibrated on 512 rows of train",),
        )
        for i in range(count)
    ]  # fmt: skip


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("background", ["#ffffff", "#111111"], ids=["light", "dark"])
@pytest.mark.parametrize("colour", [*COLOURS.values(), LEGEND["technique"]])
def test_colours_stand_out_in_both_themes(colour: str, background: str) -> None:
    bright, dark = sorted((_luminance(colour) + 0.05, _luminance(background) + 0.05), reverse=True)
    assert bright / dark >= 3.0  # WCAG 1.4.11: graphics
