"""The tutorials that came with the extension: a tile of the launcher and the palette open copies, and harm none."""

from __future__ import annotations

import nbformat
import pytest
from playwright.sync_api import Page, expect

from nbopt.demo import titles
from tests.e2e.conftest import Lab, OpenPage, open_notebook
from tests.e2e.test_runs import palette

pytestmark = pytest.mark.e2e


def test_a_tile_of_the_launcher_opens_a_copy_of_a_tutorial(open_page: OpenPage, lab: Lab) -> None:
    page = open_page()
    page.goto(lab.address())
    page.locator(".jp-LauncherCard", has_text="Tutorials").click()
    offered = page.locator(".jp-Dialog select")
    assert [each.strip() for each in offered.locator("option").all_inner_texts()] == list(titles().values())
    source, title = next((path, title) for path, title in titles().items() if path.stem == "quickstart")
    offered.select_option(title)
    page.locator(".jp-Dialog").get_by_role("button", name="Open").click()
    expect(page.locator(".jp-Notebook .jp-Cell").first).to_contain_text(title)
    copy = nbformat.read(lab.folder / "nbopt-quickstart.ipynb", as_version=4)
    assert [cell.source for cell in copy.cells] == [cell.source for cell in nbformat.read(source, as_version=4).cells]


def test_ones_own_copy_is_opened_as_it_is(page: Page, lab: Lab) -> None:
    (lab.folder / "mine").mkdir()
    name = lab.write("mine/nbopt-training.ipynb", ["'changed by me'"])
    open_notebook(page, lab, lab.write("mine/beside.ipynb", [""]))
    palette(page, "Open a Tutorial")
    dialog = page.locator(".jp-Dialog")
    dialog.locator("select").select_option(next(title for path, title in titles().items() if path.stem == "training"))
    dialog.get_by_role("button", name="Open").click()
    expect(page.locator(".jp-NotebookPanel:visible .jp-Cell").first).to_contain_text("changed by me")
    assert "changed by me" in (lab.folder / name).read_text()
