"""The panel in a real browser: from a click to an exported file, cancelled during work, saved."""

from __future__ import annotations

import re

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Lab, open_notebook, run_cell
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


def test_from_a_click_to_an_exported_file_and_a_cell(page: Page, lab: Lab) -> None:
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
    expect(panel.get_by_role("status")).to_contain_text("small.onnx")
    assert (lab.folder / "small.onnx").stat().st_size > 0
    press(panel, "Apply")
    expect(panel.get_by_role("status")).to_contain_text("fast_model")
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


def test_cancel_during_a_training_and_the_kernel_is_free_meanwhile(page: Page, lab: Lab) -> None:
    panel = opened(page, lab, "cancel.ipynb")
    panel.get_by_label("technique", exact=True).select_option("prune")
    panel.get_by_text("options of prune").click()
    panel.get_by_label("sparsity", exact=True).fill("7")
    expect(panel.get_by_text("between 0 and 1", exact=False).first).to_be_visible()
    panel.get_by_label("sparsity", exact=True).fill("50%")
    panel.get_by_label("epochs", exact=True).fill("10000")
    press(panel, "Run")
    expect(panel.get_by_text(re.compile(r"training [\d.]+/10000"))).to_be_visible()
    expect(panel.locator("img[alt^='loss from']")).to_be_visible()
    panel.get_by_label("technique", exact=True).select_option(label=BARE)
    press(panel, "Run")
    expect(panel.get_by_text(re.compile(r"optimize use .*: waiting"))).to_be_visible()
    # A cell runs while the panel's work goes on.
    run_cell(page, 2)
    expect(output(page, 2)).to_contain_text("2")
    expect(panel.get_by_text(re.compile(r"training [\d.]+/10000"))).to_be_visible()
    press(panel, "Cancel")
    expect(panel.get_by_text(re.compile(r"prune .*: cancelled"))).to_be_visible()
    expect(panel.get_by_text(re.compile(r"optimize use .*: done in"))).to_be_visible()
    expect(panel.locator(".jp-OutputArea-child").nth(1).get_by_text("ONNX Runtime").first).to_be_visible()
