"""The side panel of runs, the palette's commands, the toolbar's button and the settings."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from nbopt import Comparison
from tests.e2e.comparisons import LAYERED
from tests.e2e.conftest import Lab, open_notebook, refuse_kernel, run_cell, serious_faults
from tests.render.sample_runs import EVERYTHING, INT8

pytestmark = pytest.mark.e2e


def execute(page: Page, command: str, **arguments: str) -> None:
    page.evaluate("([id, args]) => void window.jupyterapp.commands.execute(id, args)", [command, arguments])


def palette(page: Page, label: str) -> None:
    """Run a command as a person does: open the palette, type, enter."""
    page.keyboard.press("Control+Shift+C")
    page.locator(".lm-CommandPalette-input:visible").fill(label)
    page.locator(".lm-CommandPalette-item", has_text=label).first.click()


def test_runs_of_two_notebooks_are_listed_and_compared(page: Page, lab: Lab) -> None:
    lab.write("one.ipynb", [LAYERED._repr_mimebundle_()], kernel=False)
    lab.write("two.ipynb", [Comparison([EVERYTHING.runs[0], INT8])._repr_mimebundle_()], kernel=False)
    open_notebook(page, lab, "one.ipynb", kernel=False)
    execute(page, "docmanager:open", path="two.ipynb")
    refuse_kernel(page)
    page.locator(".jp-NotebookPanel:visible .jp-ToolbarButtonComponent", has_text="nbopt").click()
    panel = page.locator("#nbopt-runs")
    expect(panel.locator(".nbopt-RunsTitle")).to_have_text([f"one.ipynb ({len(LAYERED)})", "two.ipynb (2)"])
    lists = panel.locator(".nbopt-RunsList")
    lists.nth(0).get_by_label("distill to a small CNN").check()
    lists.nth(1).get_by_label("quantize int8 static").check()
    assert serious_faults(page, "#nbopt-runs") == []
    panel.get_by_role("button", name="Compare 2 picked runs").click()
    table = page.locator(".jp-MainAreaWidget:visible .nbopt-Comparison")
    expect(table.locator(".nbopt-Row")).to_have_count(2)
    expect(table).to_contain_text("quantize int8 static (two.ipynb)")
    expect(table.locator(".nbopt-Strong")).to_contain_text("2 runs of fashion-cnn from 2 notebooks")


def test_a_live_run_joins_the_panel(page: Page, lab: Lab) -> None:
    open_notebook(page, lab, lab.write("live.ipynb", ["from tests.e2e.comparisons import LAYERED\nLAYERED"]))
    palette(page, "Show Runs")
    panel = page.locator("#nbopt-runs")
    expect(panel).to_contain_text("No open notebook shows runs of nbopt.")
    run_cell(page, 0)
    expect(panel.locator(".nbopt-RunsList > li")).to_have_count(len(LAYERED))


def test_the_palette_inserts_a_technique_that_the_kernel_knows(page: Page, lab: Lab) -> None:
    open_notebook(page, lab, lab.write("insert.ipynb", [""]))
    palette(page, "Insert a Technique")
    dialog = page.locator(".jp-Dialog")
    expect(dialog).to_contain_text("Insert a technique")
    dialog.locator("select").select_option("prune")
    dialog.get_by_role("button", name="Insert").click()
    expect(page.locator(".jp-Notebook .cm-content").first).to_have_text("%optimize prune")


def test_interrupt_from_the_palette_stops_the_cell(page: Page, lab: Lab) -> None:
    open_notebook(
        page, lab, lab.write("interrupt.ipynb", ["import time\nprint('started', flush=True)\ntime.sleep(600)"])
    )
    page.locator(".jp-Notebook .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea")).to_contain_text("started")
    palette(page, "Interrupt and Keep What Is Done")
    expect(page.locator(".jp-OutputArea")).to_contain_text("KeyboardInterrupt")
    expect(page.locator(".jp-InputPrompt").first).to_have_text(re.compile(r"\[\d+\]:"))
