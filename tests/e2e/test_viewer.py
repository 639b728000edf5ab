"""A `.nbopt.json` file opened in JupyterLab, with no notebook and no kernel."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from nbopt import Comparison
from tests.e2e.comparisons import LAYERED
from tests.e2e.conftest import Lab, open_path

pytestmark = pytest.mark.e2e


def test_a_saved_comparison_opens_as_its_table(page: Page, lab: Lab) -> None:
    path = LAYERED.save(lab.folder / "adult.nbopt.json")
    assert Comparison.read(path).runs == LAYERED.runs
    open_path(page, lab, path.name)
    expect(page.locator(".jp-MimeDocument .nbopt-Row")).to_have_count(len(LAYERED))
    page.get_by_role("button", name="speedup").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_count(1)
    assert lab.ask("kernels") == []


def test_a_file_that_is_something_else_says_so(page: Page, lab: Lab) -> None:
    (lab.folder / "other.nbopt.json").write_text('{"format": "nbopt.comparison", "version": 1, "runs": []}')
    open_path(page, lab, "other.nbopt.json")
    expect(page.locator(".nbopt-Renderer")).to_contain_text('it has no view: cmp.save("name.nbopt.json") writes one')


def test_the_description_beside_an_artifact_is_shown_as_it_is(page: Page, lab: Lab) -> None:
    (lab.folder / "model.onnx.nbopt.json").write_text('{"nbopt_artifact": 1, "manifest": {"runtime": "onnxruntime"}}')
    open_path(page, lab, "model.onnx.nbopt.json")
    output = page.locator(".nbopt-Renderer")
    expect(output).to_contain_text("is no comparison")
    expect(output.locator("pre")).to_contain_text('"runtime": "onnxruntime"')
