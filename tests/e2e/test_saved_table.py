"""The HTML of a comparison, as a saved notebook keeps it, opened in a real browser with no kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from nbopt import Comparison
from tests.render import sample_runs

HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


@pytest.mark.e2e
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_saved_page_shows_every_row_and_picture_and_asks_nobody(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    comparison = Comparison([*sample_runs.EVERYTHING, sample_runs.failed("quantize/hostile", HOSTILE, HOSTILE)])
    page_file = comparison.save(tmp_path / "comparison.html")
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    requests: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(page_file.as_uri())
    text = page.locator("body").inner_text()
    for run in comparison:
        assert page.get_by_text(run.label, exact=True).count() or run.label in text
    assert "document.title='run'" in text, "what a user names is shown as text"
    assert page.title() == "nbopt"
    pictures = page.locator("img")
    assert pictures.count() > 0
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert all(pictures.nth(index).get_attribute("alt") for index in range(pictures.count()))
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert faults == []
    page.locator("summary").first.click()
    assert page.locator("details").first.get_attribute("open") is not None
    page.close()
