"""The panel in a real browser: from a click to an exported file, by keys, cancelled during work, with no kernel."""

from __future__ import annotations

import re

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Lab, OpenPage, open_notebook, run_cell, serious_faults, set_theme
from tests.jupyter.conftest import MODEL

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

BARE = "none: measure the model as it is"
START = f"%load_ext nbopt\n{MODEL}"


def output(page: Page, number: int) -> Locator:
    return page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".jp-Cell-outputWrapper")


def opened(page: Page, lab: Lab, name: str) -> Locator:
    """Open a notebook with a panel over a small model, on one quick runtime."""
    open_notebook(page, lab, lab.write(name, [START, "%optimize panel", "1 + 1"]))
    run_cell(page, 0)
    run_cell(page, 1)
    panel = output(page, 1)
    expect(panel.get_by_role("button", name="Run", exact=True)).to_be_enabled()
    panel.get_by_text("running and measuring").click()
    panel.get_by_label("runtimes", exact=True).fill("onnxruntime")
    panel.get_by_label("threads", exact=True).fill("1")
    expect(panel.get_by_text("quantize --runtimes onnxruntime --threads 1")).to_be_visible()
    return panel


def press(panel: Locator, name: str) -> None:
    panel.get_by_role("button", name=name, exact=True).click()


def told(panel: Locator) -> Locator:
    """Return the panel's own message; the table of results below it has a status too."""
    return panel.locator(".jp-OutputArea-child").first.get_by_role("status")


WIDER = """
() => [...document.querySelectorAll(".nbopt-Panel, .nbopt-Panel *")]
  .filter(each => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1 && !each.matches("pre, select"))
  .map(each => each.className)
"""


def test_by_keys_in_both_themes_and_narrow(open_page: OpenPage, lab: Lab) -> None:
    page = open_page(width=1400, height=1500)
    panel = opened(page, lab, "keys.ipynb")
    technique = panel.get_by_label("technique", exact=True)
    technique.focus()
    # Keys that delete and cut a cell where the list leaves them to the notebook.
    for key in "pddx":
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == 3
    technique.select_option("prune")
    technique.focus()
    page.keyboard.press("Tab")
    fold = panel.get_by_role("button", name="options of prune")
    expect(fold).to_be_focused()
    assert fold.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Space")
    expect(fold).to_have_text(re.compile("▾"))
    page.keyboard.press("Tab")
    expect(panel.get_by_label("sparsity", exact=True)).to_be_focused()
    page.keyboard.press("Control+a")
    page.keyboard.type("30%")
    expect(panel.get_by_text("prune --sparsity 30%")).to_be_visible()
    for scheme in ("light", "dark"):
        set_theme(page, scheme)  # type: ignore[arg-type]
        assert serious_faults(page, ".nbopt-Panel") == []
    page.set_viewport_size({"width": 760, "height": 1500})
    page.wait_for_function(f"({WIDER})().length === 0")
    fold.focus()
    page.keyboard.press("Enter")
    expect(panel.get_by_label("sparsity", exact=True)).to_be_hidden()


def test_from_a_click_to_an_exported_file_and_a_cell(page: Page, lab: Lab, open_page: OpenPage) -> None:
    panel = opened(page, lab, "panel.ipynb")
    assert panel.get_by_label("model", exact=True).input_value() == "net"
    press(panel, "Run")
    expect(panel.get_by_text(re.compile(r"quantize .*: done in \d+ s"))).to_be_visible()
    # The rows are an output of the notebook, not a part of the widget.
    rows = panel.locator(".jp-OutputArea-child").nth(1)
    expect(rows.get_by_text("ONNX Runtime").first).to_be_visible()
    panel.get_by_label("run", exact=True).select_option("quantize/onnxruntime")
    panel.get_by_label("file", exact=True).fill("small")
    press(panel, "Export")
    expect(told(panel)).to_contain_text("small.onnx")
    assert (lab.folder / "small.onnx").stat().st_size > 0
    press(panel, "Apply")
    expect(told(panel)).to_contain_text("fast_model")
    press(panel, "Insert as a cell")
    run_cell(page, 2)
    made = page.locator(".jp-Notebook .jp-Cell").nth(3)
    expect(made).to_contain_text("%optimize use net --train train --valid valid")
    expect(made).to_contain_text("%optimize export quantize/onnxruntime small")
    # The rows are in the saved notebook, in a form that needs neither kernel nor widget.
    page.keyboard.press("Control+s")
    expect(page.locator(".jp-mod-current .jp-DocumentTitle, .lm-TabBar-tab.jp-mod-current.jp-mod-dirty")).to_have_count(
        0
    )
    saved = nbformat.read(lab.folder / "panel.ipynb", as_version=4)
    bundles = [each.get("data", {}) for each in saved.cells[1].outputs]
    assert any("quantize" in str(bundle.get("text/plain")) for bundle in bundles)
    # Another reader, with no kernel: the panel says so in a line, and its results are there.
    saved.metadata.clear()
    nbformat.write(saved, lab.folder / "read.ipynb")
    reader = open_page()
    open_notebook(reader, lab, "read.ipynb", kernel=False)
    read = output(reader, 1)
    expect(read).to_contain_text("nbopt's panel needs a running kernel")
    expect(read.locator(".nbopt-Row")).to_have_count(3)
    expect(read).to_contain_text("quantize int8 static")


def test_cancel_during_a_training_and_the_kernel_is_free_meanwhile(page: Page, lab: Lab) -> None:
    panel = opened(page, lab, "cancel.ipynb")
    panel.get_by_label("technique", exact=True).select_option("prune")
    panel.get_by_text("options of prune").click()
    panel.get_by_label("sparsity", exact=True).fill("7")
    expect(panel.get_by_text("between 0 and 1", exact=False).first).to_be_visible()
    panel.get_by_label("sparsity", exact=True).fill("50%")
    panel.get_by_label("epochs", exact=True).fill("10000")
    press(panel, "Run")
    expect(panel.get_by_text(re.compile(r"training epoch \d+ of 10,000"))).to_be_visible()
    expect(panel.locator("img[alt^='loss from']").first).to_be_visible()
    panel.get_by_label("technique", exact=True).select_option(label=BARE)
    press(panel, "Run")
    expect(panel.get_by_text(re.compile(r"optimize use .*: waiting"))).to_be_visible()
    # A cell runs while the panel's work goes on.
    run_cell(page, 2)
    expect(output(page, 2)).to_contain_text("2")
    expect(panel.get_by_text(re.compile(r"training epoch \d+ of 10,000"))).to_be_visible()
    # Of the baselines, which are measured by now, and of the training.
    expect(panel.locator(".nbopt-Panel img[alt^='accuracy against speedup']")).to_be_visible()
    expect(panel.locator(".nbopt-Panel img[alt^='loss from'][width='420']")).to_be_visible()
    press(panel, "Cancel")
    expect(panel.get_by_text(re.compile(r"prune .*: cancelled"))).to_be_visible()
    expect(panel.get_by_text(re.compile(r"optimize use .*: done in"))).to_be_visible()
    expect(panel.locator(".jp-OutputArea-child").nth(1).get_by_text("ONNX Runtime").first).to_be_visible()
    # The curve of the training that was cancelled is an output too, which stays.
    expect(panel.locator(".jp-OutputArea-child").nth(2).locator("img[alt^='loss from']")).to_be_visible()
