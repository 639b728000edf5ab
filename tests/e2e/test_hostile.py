"""Outputs written to do harm, or broken: in the live table, in the HTML, and in a file. Nothing runs, nothing hangs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from nbopt import Comparison
from nbopt.render import MIME
from tests.e2e.comparisons import HOSTILE, LAYERED
from tests.e2e.conftest import Lab, open_notebook
from tests.render.sample_runs import failed

pytestmark = pytest.mark.e2e


def hostile() -> Comparison:
    runs = [
        dataclasses.replace(
            run,
            name=f"{HOSTILE}{number}/{HOSTILE}",
            workload=HOSTILE,
            label=HOSTILE,
            runtime=HOSTILE,
            dtype=HOSTILE,
            metric=HOSTILE,
            reason=HOSTILE,
            verdict=HOSTILE,
            notes=(HOSTILE,),
            environment={HOSTILE: HOSTILE},
        )
        for number, run in enumerate(LAYERED)
    ]
    return Comparison([*runs, failed(f"x/{HOSTILE}", HOSTILE, HOSTILE)])


def show(page: Page, lab: Lab, data: dict[str, Any], *, trust: bool = False) -> None:
    open_notebook(page, lab, lab.write("hostile.ipynb", [data], kernel=False, trust=trust), kernel=False)


def assert_nothing_ran(page: Page) -> None:
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("trust", [False, True])
def test_names_that_are_markup_are_text_in_the_live_table(page: Page, lab: Lab, trust: bool) -> None:
    show(page, lab, hostile()._repr_mimebundle_(), trust=trust)
    expect(page.locator(".nbopt-Row").first).to_contain_text("<script>")
    for box in page.locator(".nbopt-Pick").all()[:2]:
        box.check()
    expect(page.locator(".nbopt-CompareTable")).to_contain_text("<img src=x")
    assert page.locator(".nbopt-Comparison :is(script, img)").count() == 0
    assert_nothing_ran(page)


@pytest.mark.parametrize("trust", [False, True])
def test_names_that_are_markup_are_text_in_the_html(page: Page, lab: Lab, trust: bool) -> None:
    show(page, lab, {"text/html": hostile()._repr_mimebundle_()["text/html"]}, trust=trust)
    expect(page.locator(".jp-RenderedHTML")).to_contain_text("<script>")
    assert page.locator(".jp-RenderedHTML script").count() == 0
    assert_nothing_ran(page)


@pytest.mark.parametrize("trust", [False, True])
def test_an_unknown_version_shows_the_html_without_what_it_must_not_hold(page: Page, lab: Lab, trust: bool) -> None:
    bundle = LAYERED._repr_mimebundle_()
    harm = f'<b>the table as HTML</b>{HOSTILE}<a href="javascript:window.hacked=1">go</a>'
    show(page, lab, {**bundle, MIME: {**bundle[MIME], "version": 2}, "text/html": harm}, trust=trust)
    output = page.locator(".nbopt-Renderer")
    expect(output).to_contain_text("its version is 2, and this extension reads 1")
    expect(output).to_contain_text("the table as HTML")
    assert output.locator("script, [onerror], [onload], a[href^=javascript]").count() == 0
    assert_nothing_ran(page)


ODD_ROWS = [None, 3, {"rows": [{"run": {"toString": 1}}]}]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "the table as text"),
        ({"version": 1}, "the table as text"),
        ({"version": 1, "workloads": {"length": 3}, "runs": []}, "the table as text"),
        ({"version": 1, "workloads": ODD_ROWS, "runs": [None, "x", {"name": 4}]}, "No runs yet."),
    ],
)
def test_a_broken_payload_shows_what_there_is(page: Page, lab: Lab, data: dict[str, Any], said: str) -> None:
    show(page, lab, {MIME: data, "text/plain": "the table as text"})
    expect(page.locator(".nbopt-Renderer")).to_contain_text(said)


def test_ten_megabytes_of_json_do_not_hang(page: Page, lab: Lab) -> None:
    bundle = LAYERED._repr_mimebundle_()
    body = json.loads(json.dumps(bundle[MIME]))
    for number, run in enumerate(body["runs"]):
        run["reason"] = "x" * 700_000
        run["environment"] = {f"key {number} {i}": "y" * 100 for i in range(7_000)}
    assert len(json.dumps(body)) > 10_000_000
    show(page, lab, {**bundle, MIME: body})
    expect(page.locator(".nbopt-Row")).to_have_count(len(LAYERED))
    for box in page.locator(".nbopt-Pick").all()[:2]:
        box.check()
    expect(page.locator(".nbopt-CompareTable")).to_be_visible()
    page.get_by_role("button", name="speedup").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_count(1)
