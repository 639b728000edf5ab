"""Magics in a real notebook: the table that is rendered, progress in one place, errors in a line."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Lab, open_notebook, run_cell
from tests.e2e.test_panel import START, output

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

FAST = "--runtimes onnxruntime --threads 1"


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
