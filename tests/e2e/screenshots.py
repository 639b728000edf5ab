"""Make the README's pictures of the table: `python -m tests.e2e.screenshots NOTEBOOK [FOLDER]`, after `make lab`.

The notebook is one that ran, such as `nbopt demo` leaves. The last comparison in it is shown as the HTML that every
front end can show, and opened in a JupyterLab with no kernel; each in both themes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import nbformat
from playwright.sync_api import Browser, Page, expect

from nbopt.render import MIME
from tests.e2e.conftest import ROOT, Lab, chromium, jupyterlab, open_notebook, set_theme

FOLDER = ROOT / "notebooks" / "images"
WIDTH, HEIGHT = 1640, 1500
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
COLORS = {"light": "color:#212121;background:#fff", "dark": "color:#e0e0e0;background:#111"}
"""Those of JupyterLab's outputs: the HTML takes the page's."""


def last_comparison(notebook: Path) -> dict[str, Any]:
    """Return the bundle of the last comparison that a notebook shows."""
    cells = nbformat.read(notebook, as_version=4).cells
    found = [output.data for cell in cells for output in cell.get("outputs", ()) if MIME in output.get("data", {})]
    if not found:
        raise SystemExit(f"expected a notebook that shows a comparison, came {notebook}")
    return dict(found[-1])


def take_static(browser: Browser, html: str, folder: Path) -> None:
    """Take the table as HTML alone."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.4)
    for theme in THEMES:
        body = f"display:inline-block;margin:0;padding:12px;font-family:system-ui,sans-serif;{COLORS[theme]}"
        page.set_content(f'<body style="{body}">{html}</body>')
        page.locator("body").screenshot(path=folder / f"comparison-{theme}.png")
    page.close()


def take(page: Page, lab: Lab, bundle: dict[str, Any], folder: Path) -> None:
    """Take the table with a limit, and two of its rows compared."""
    open_notebook(page, lab, lab.write("readme.ipynb", [bundle], kernel=False), kernel=False)
    output = page.locator(".nbopt-Renderer")
    plot = output.locator(".nbopt-PlotFold")
    drop = page.locator("input[data-limit=drop]")
    boxes = output.locator(".nbopt-Row:not(.nbopt-mod-failed) .nbopt-Pick")
    expect(boxes.first).to_be_visible()
    for theme in THEMES:
        set_theme(page, theme)
        drop.focus()
        drop.press("End")
        drop.press("ArrowLeft")
        drop.press("ArrowLeft")
        output.locator(".nbopt-Row.nbopt-mod-best .nbopt-Pick").first.check()
        output.locator(".nbopt-Row:not(.nbopt-mod-best, .nbopt-mod-failed) .nbopt-Pick").nth(3).check()
        plot.evaluate("element => { element.open = false }")
        drop.blur()
        page.mouse.move(0, 0)
        output.screenshot(path=folder / f"live-compare-{theme}.png")
        page.get_by_role("button", name="Put back").click()
        drop.press("End")
        plot.evaluate("element => { element.open = true }")


def main() -> None:
    """Take all pictures."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    bundle = last_comparison(Path(sys.argv[1]))
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, jupyterlab(Path(home)) as lab, chromium() as browser:
        take_static(browser, bundle["text/html"], folder)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        take(page, lab, bundle, folder)
    print(*sorted(path.name for path in folder.glob("*.png")), sep="\n")


if __name__ == "__main__":
    main()
