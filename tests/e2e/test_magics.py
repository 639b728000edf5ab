"""Magics in a real notebook: the table that is rendered, progress in one place, completion by Tab, errors in a line."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from nbopt.techniques import all_techniques
from tests.e2e.conftest import Lab, open_notebook, run_cell
from tests.e2e.test_panel import START, output
from tests.e2e.test_runs import palette

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

FAST = "--runtimes onnxruntime --threads 1"
LONG_DATA = """
import time

class Slow:
    pause = 0.0
    def __len__(self):
        return 2000
    def __iter__(self):
        for _ in range(2000):
            time.sleep(Slow.pause)
            yield x[:4], y[:4]
        Slow.pause = 0.01  # the first reading is for the rows themselves

slow = Slow()
"""


def completions(page: Page, number: int, line: str, then: str = "Escape") -> list[str]:
    """Type a line into a cell, press Tab, and return what is offered: the kernel's first, then words of the cell.

    Args:
        page: Where.
        number: The cell, counted from 0.
        line: The line.
        then: The key that is pressed on the list: Escape leaves it, Enter takes the first.
    """
    cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(line)
    page.keyboard.press("Tab")
    items = page.locator(".jp-Completer-item .jp-Completer-match")
    expect(items.first).to_be_visible()
    # The completer adds what doesn't fit into view frame by frame, and holds its room open by a margin until then.
    expect(page.locator(".jp-Completer-item[style*='margin-bottom']")).to_have_count(0)
    found = items.all_inner_texts()
    page.keyboard.press(then)
    expect(items.first).to_be_hidden()
    return found


def test_completion_by_tab_goes_by_what_each_place_holds(page: Page, lab: Lab) -> None:
    open_notebook(page, lab, lab.write("tab.ipynb", [f"{START}\nother = torch.nn.Linear(8, 2)", ""]))
    run_cell(page, 0)
    assert completions(page, 1, "%optimize use net --valid ")[:2] == ["train", "valid"]
    assert completions(page, 1, "r = %optimize use --model ")[:2] == ["net", "other"]
    assert {*all_techniques(), "panel", "attach"} <= set(completions(page, 1, "%optimize "))
    assert completions(page, 1, "%optimize quantize --dtype ")[:2] == ["int8", "int4"]
    assert completions(page, 1, "r = %optimize pr", then="Enter")[0] == "prune"
    expect(page.locator(".jp-Notebook .cm-content").nth(1)).to_have_text("r = %optimize prune")


def test_a_long_training_says_where_it_is(page: Page, lab: Lab) -> None:
    """One epoch of many steps, of which the first hundredth takes seconds: a share alone would read 0% meanwhile."""
    cells = [f"{START}\n{LONG_DATA}", f"%optimize prune --epochs 1 --model net --train slow --valid valid {FAST}"]
    open_notebook(page, lab, lab.write("long.ipynb", cells))
    run_cell(page, 0)
    page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".cm-content").first.click()
    page.keyboard.press("Control+Enter")
    shown = output(page, 1)
    expect(shown).to_contain_text(re.compile(r"training step [\d,]+ of 2,000 · loss [\d.]+ · .*so far"))
    expect(shown).to_contain_text(re.compile(r"training step [\d,]+ of 2,000 · .* left · "))
    palette(page, "Interrupt and Keep What Is Done")
    expect(shown).to_contain_text(re.compile(r"interrupted after \d"))
    expect(shown).to_contain_text("ONNX Runtime")


def test_a_magic_shows_a_table_and_leaves_one_line_of_progress(page: Page, lab: Lab) -> None:
    cells = [START, f"%optimize use net --train train --valid valid {FAST}", f"%optimize prune -o pruned {FAST}"]
    open_notebook(
        page, lab, lab.write("magics.ipynb", [*cells, "%optimize prun --sparsity 1", "%optimize plot pareto"])
    )
    for number in range(3):
        run_cell(page, number)
    shown = output(page, 2)
    expect(shown).to_contain_text("ONNX Runtime")
    expect(shown).to_contain_text("prune")
    # The live area has become one line, with the curve of the training.
    expect(shown.get_by_text(re.compile(r"done in [\d.]+ s"))).to_have_count(1)
    expect(shown.locator("img[alt^='loss from']").first).to_be_visible()
    run_cell(page, 3)
    error = output(page, 3)
    expect(error).to_contain_text("did you mean 'prune'?")
    assert "Traceback" not in error.inner_text()
    assert len(error.inner_text().strip().splitlines()) <= 4
    run_cell(page, 4)
    expect(output(page, 4).locator(".js-plotly-plot, img[alt*='nothing beats']").first).to_be_visible()
