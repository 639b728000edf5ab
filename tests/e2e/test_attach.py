"""A page reloaded, and a kernel restarted, in the middle of work: attach shows what was done and goes on."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Lab, OpenPage, open_notebook, run_cell
from tests.e2e.test_panel import START, opened, output, press

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

TRAINING = re.compile(r"training epoch \d+ of 10,000")
LONG = "%optimize prune --epochs 10000 --model net --train train --valid valid --runtimes onnxruntime --threads 1"


def test_a_reload_during_the_panels_work(open_page: OpenPage, lab: Lab) -> None:
    page = open_page()
    panel = opened(page, lab, "reload.ipynb")
    panel.get_by_label("technique", exact=True).select_option("prune")
    panel.get_by_text("options of prune").click()
    panel.get_by_label("epochs", exact=True).fill("10000")
    press(panel, "Run")
    expect(panel.get_by_text(TRAINING)).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())  # whether to leave what is not saved
    page.reload()
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()
    cell = page.locator(".jp-Notebook .jp-Cell").nth(2)
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text("%optimize attach")
    run_cell(page, 2)
    attached = output(page, 2)
    expect(attached.get_by_text(TRAINING).first).to_be_visible()
    expect(attached.get_by_text("ONNX Runtime").first).to_be_visible()
    attached.get_by_role("button", name="Cancel", exact=True).click()
    expect(attached.get_by_text(re.compile(r"prune .*: cancelled"))).to_be_visible()
    assert len(lab.ask("kernels")) == 1  # the one that went on working while the page was away


def test_a_restart_in_the_middle_of_a_cell(page: Page, lab: Lab) -> None:
    short = LONG.replace("10000", "{epochs}")
    name = lab.write("restart.ipynb", [f"{START}\nepochs = 10000", short, "epochs = 1", "%optimize attach"])
    open_notebook(page, lab, name)
    run_cell(page, 0)
    cell = page.locator(".jp-Notebook .jp-Cell").nth(1)
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(output(page, 1).get_by_text(TRAINING)).to_be_visible()
    kernel = lab.ask("kernels")[0]["id"]
    lab.ask(f"kernels/{kernel}/restart", "POST")
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()
    run_cell(page, 0)
    run_cell(page, 2)
    run_cell(page, 3)
    attached = output(page, 3)
    expect(attached.get_by_text("goes on now", exact=False)).to_be_visible()
    expect(attached.get_by_text(re.compile("prune")).first).to_be_visible()
    expect(attached.locator("table").last).to_contain_text("prune")
    assert [each["id"] for each in lab.ask("kernels")] == [kernel]
