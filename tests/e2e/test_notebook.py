"""Notebook 7, which loads the same extension: the live table in its page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.comparisons import LAYERED
from tests.e2e.conftest import WAIT_MS, Lab, Watch, jupyterlab

pytestmark = pytest.mark.e2e

OF_ITS_OWN = "uncaught: Cannot read properties of undefined (reading 'schema')"
"""Notebook 7.6.5 throws this when it loads its settings, with no extension at all as well."""


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with jupyterlab(tmp_path_factory.mktemp("notebook"), "notebook") as running:
        yield running


def test_the_live_table_is_shown_and_sorts(browser: Browser, server: Lab) -> None:
    name = server.write("saved.ipynb", [LAYERED._repr_mimebundle_()])
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    watch = Watch(server.url)
    watch.on(page)
    page.goto(f"{server.url}/notebooks/{name}?token={server.token}")
    expect(page.locator(".nbopt-Row")).to_have_count(len(LAYERED))
    expect(page.locator(".nbopt-Strong")).to_contain_text("3.1\N{MULTIPLICATION SIGN} faster")
    page.get_by_role("button", name="speedup").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text(re.compile("speedup"))
    context.close()
    assert [each for each in watch.errors if each != OF_ITS_OWN] == []
    assert watch.outside == []
