"""The live table in JupyterLab: saved and untrusted with no kernel, and from a kernel; clicked, typed and measured."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from nbopt.render import MIME
from tests.e2e.comparisons import LAYERED, many
from tests.e2e.conftest import Lab, OpenPage, open_notebook, run_cell, serious_faults, set_theme

pytestmark = pytest.mark.e2e

FIRST_PAINT_MS, SORT_MS = 300, 100


@pytest.fixture
def shown(page: Page, lab: Lab) -> Page:
    """Return a page with the sample's comparison in a saved notebook that nobody trusts, and no kernel."""
    open_notebook(page, lab, lab.write("saved.ipynb", [LAYERED._repr_mimebundle_()], kernel=False), kernel=False)
    # As a reader does first; until then JupyterLab may still move the focus to the cell that it has just opened.
    page.locator(".nbopt-Strong").click()
    return page


def recipes(page: Page) -> list[str]:
    return page.locator(".nbopt-Row .nbopt-Cell-recipe > span:first-child").all_inner_texts()


def row(page: Page, run: str) -> Locator:
    return page.locator(".nbopt-Row").filter(has=page.get_by_label(f"Compare {run}", exact=True))


def slide(page: Page, name: str, key: str, times: int = 1) -> None:
    slider = page.locator(f"input[data-limit={name}]")
    slider.focus()
    expect(slider).to_be_focused()
    for _ in range(times):
        page.keyboard.press(key)


def test_a_saved_untrusted_notebook_shows_the_live_table_with_no_kernel(shown: Page) -> None:
    expect(shown.locator(".nbopt-Strong")).to_contain_text("3.1× faster [3.0, 3.3], 3.9× smaller, accuracy the same")
    assert recipes(shown)[0] == "baseline"
    assert len(recipes(shown)) == len(LAYERED)
    expect(row(shown, "quantize/litert#2")).to_contain_text("failed: operator X is not supported: export float")
    expect(row(shown, "quantize/openvino").locator(".nbopt-Cell-change")).to_contain_text("−0.1 [−0.3, +0.1]")
    assert shown.locator(".nbopt-LegendEntry").all_inner_texts() == ["runtime", "technique"]
    assert shown.locator(".jp-OutputArea-output.jp-RenderedHTML").count() == 0, "the live table comes before the HTML"


def test_a_trusted_notebook_shows_the_same_table(page: Page, lab: Lab) -> None:
    name = lab.write("trusted.ipynb", [LAYERED._repr_mimebundle_()], kernel=False, trust=True)
    open_notebook(page, lab, name, kernel=False)
    expect(page.locator(".nbopt-Strong")).to_contain_text("3.1× faster")
    assert page.locator(".nbopt-Row").count() == len(LAYERED)


def test_a_kernel_shows_the_same_table(page: Page, lab: Lab) -> None:
    name = lab.write("live.ipynb", ["from tests.e2e.comparisons import LAYERED\nLAYERED"])
    open_notebook(page, lab, name)
    run_cell(page, 0)
    expect(page.locator(".nbopt-Strong")).to_contain_text("3.1× faster")


def test_rows_sort_by_any_column_under_the_baseline(shown: Page) -> None:
    as_they_came = recipes(shown)
    speedup = shown.get_by_role("button", name="speedup")
    speedup.click()
    expect(shown.locator("th[aria-sort=descending]")).to_have_text(re.compile("speedup"))
    assert recipes(shown)[:2] == ["baseline", "distill to a small CNN"]
    assert recipes(shown)[-1] == "quantize int8 static", "what failed stays last"
    expect(speedup).to_be_focused()
    shown.keyboard.press("Enter")
    expect(shown.locator("th[aria-sort=ascending]")).to_have_text(re.compile("speedup"))
    assert recipes(shown)[1] == "quantize int8 dynamic"
    shown.keyboard.press("Enter")
    expect(shown.locator("th[aria-sort=none]")).to_have_count(9)
    assert recipes(shown) == as_they_came


def test_typing_filters_rows_and_is_no_command_of_the_notebook(shown: Page) -> None:
    shown.locator(".nbopt-Filter").click()
    shown.keyboard.type("int8 -failed -dynamic")
    expect(shown.locator(".nbopt-Row")).to_have_count(1)
    expect(shown.locator(".nbopt-Count")).to_have_text("1 of 7 rows")
    assert recipes(shown) == ["quantize int8 static"]
    assert shown.locator(".jp-Notebook .jp-Cell").count() == 1


def out(page: Page) -> list[str]:
    """Return the runs that are greyed, by what a screen reader is told of their boxes."""
    boxes = page.locator(".nbopt-Row.nbopt-mod-out .nbopt-Pick")
    return [str(box.get_attribute("aria-label")).removeprefix("Compare ") for box in boxes.all()]


@pytest.mark.parametrize(
    ("name", "label", "loosest", "next_one", "first_out", "why"),
    [
        ("drop", "loses at most", "1.27 pt", "0.3 pt", "distill/onnxruntime", "it may lose 1.27 pt"),
        ("latency", "takes at most", "2.48 ms", "0.41 ms", "quantize/litert", "its latency is 2.48 ms"),
        ("size", "is at most", "1.35 MB", "1.33 MB", "baseline/torch", "its size is 1.35 MB"),
    ],
)
def test_arrows_on_a_slider_grey_what_does_not_qualify_and_say_why(
    shown: Page, name: str, label: str, loosest: str, next_one: str, first_out: str, why: str
) -> None:
    slider = shown.get_by_role("slider", name=label)
    expect(slider).to_have_attribute("aria-valuetext", "no limit")
    expect(shown.locator(".nbopt-Count")).to_have_text("7 rows")
    slide(shown, name, "ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", loosest)
    assert out(shown) == [], "each step is a figure that a row has, and the first lets all in"
    slide(shown, name, "ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", next_one)
    assert out(shown) == [first_out]
    greyed = row(shown, first_out)
    expect(greyed).to_have_attribute("title", f"Does not qualify: {why}")
    expect(greyed.locator(".nbopt-Why")).to_have_text(f" (does not qualify: {why})")
    expect(shown.locator(".nbopt-Count")).to_have_text("7 rows, 5 qualify")
    expect(shown.locator(".nbopt-Point.nbopt-mod-out")).to_have_attribute("data-run", first_out)
    colour = "element => getComputedStyle(element).color"
    kept = row(shown, "quantize/openvino").locator(".nbopt-Cell-runtime")
    assert greyed.locator(".nbopt-Cell-runtime").evaluate(colour) != kept.evaluate(colour)
    expect(slider).to_be_focused()
    slide(shown, name, "End")
    expect(slider).to_have_attribute("aria-valuetext", "no limit")
    assert out(shown) == []
    expect(shown.locator(".nbopt-Count")).to_have_text("7 rows")


def test_sliders_are_dragged_and_hold_together(shown: Page) -> None:
    def drag(name: str, share: float) -> None:
        box = shown.locator(f"input[data-limit={name}]").bounding_box()
        assert box is not None
        y = box["y"] + box["height"] / 2
        # The thumb stands at the right end, half its width inside.
        shown.mouse.move(box["x"] + box["width"] - 8, y)
        shown.mouse.down()
        shown.mouse.move(box["x"] + box["width"] * share, y, steps=5)
        shown.mouse.up()

    drag("size", 0)
    expect(shown.locator("input[data-limit=size]")).to_have_attribute("aria-valuetext", "30 kB")
    expect(shown.locator(".nbopt-Count")).to_have_text("7 rows, 1 qualifies")
    drag("drop", 0)
    expect(shown.locator("input[data-limit=drop]")).to_have_attribute("aria-valuetext", "0 pt")
    expect(shown.locator(".nbopt-Count")).to_have_text("7 rows, 0 qualify")
    expect(row(shown, "quantize/openvino")).to_have_attribute(
        "title", "Does not qualify: it may lose 0.3 pt, its size is 0.346 MB"
    )


def test_keys_on_controls_are_no_commands_of_the_notebook_and_its_own_still_are(shown: Page) -> None:
    box = shown.get_by_label("Compare quantize/openvino", exact=True)
    box.focus()
    for key in "ddbaxz":
        shown.keyboard.press(key)
    expect(box).to_be_focused()
    assert shown.locator(".jp-Notebook .jp-Cell").count() == 1
    assert shown.locator(".nbopt-Row").count() == len(LAYERED)
    shown.keyboard.press("Control+Shift+C")
    expect(shown.locator(".lm-CommandPalette-input:visible")).to_be_focused()


def test_two_rows_are_picked_by_key_and_their_recipes_layers_and_figures_compared(shown: Page) -> None:
    shown.get_by_label("Compare quantize/openvino", exact=True).focus()
    shown.keyboard.press("Space")
    expect(shown.locator(".nbopt-Compare")).to_contain_text("Pick another row")
    shown.keyboard.press("ArrowDown")
    expect(shown.get_by_label("Compare prune/openvino", exact=True)).to_be_focused()
    shown.keyboard.press("Space")
    panel = shown.locator(".nbopt-CompareTable")
    for section in ("Recipe", "Figures", "Layers"):
        expect(panel.locator(".nbopt-CompareTitle", has_text=section)).to_be_visible()
    step = panel.get_by_role("row", name=re.compile("^step 1"))
    expect(step).to_contain_text("quantize")
    expect(step).to_contain_text("prune")
    layer = panel.get_by_role("row", name=re.compile("^conv1"))
    expect(layer).to_contain_text("int8")
    expect(layer).to_contain_text("float32")
    expect(panel).to_contain_text("1 layer is alike")
    shown.get_by_role("button", name="Put back").click()
    expect(shown.locator(".nbopt-Compare")).to_have_count(0)


def test_columns_are_chosen(shown: Page) -> None:
    shown.locator(".nbopt-Columns summary").click()
    shown.get_by_label("peak memory").check()
    expect(row(shown, "quantize/openvino")).to_contain_text("50 MB")
    shown.get_by_label("realised precision").uncheck()
    expect(shown.get_by_role("button", name="realised precision")).to_have_count(0)


def test_the_plot_and_the_table_point_at_each_other(shown: Page) -> None:
    point = shown.locator(".nbopt-Point[data-run='distill/onnxruntime']")
    row(shown, "distill/onnxruntime").hover()
    expect(point).to_have_class(re.compile("nbopt-mod-pointed"))
    point.hover()
    expect(row(shown, "distill/onnxruntime")).to_have_class(re.compile("nbopt-mod-pointed"))
    point.click()
    expect(shown.get_by_label("Compare distill/onnxruntime")).to_be_checked()
    assert shown.locator(".nbopt-Point.nbopt-mod-front").count() == len(LAYERED.pareto())
    shown.get_by_label("accuracy against", exact=True).select_option("size")
    expect(shown.locator(".nbopt-AxisTitle")).to_have_text("size (logarithmic)")


# The page says which theme it has before that theme's style has come.
TEXT_IS = """([element, dark]) => {
  const [red, green, blue] = getComputedStyle(element).color.match(/[\\d.]+/g).map(Number);
  return (red + green + blue) / 3 < 128 === dark;
}"""


def test_the_theme_switches_the_table_too(shown: Page) -> None:
    verdict = shown.locator(".nbopt-Verdict.nbopt-tone-good").first
    colours = set()
    for scheme, dark in (("light", True), ("dark", False), ("light", True)):
        set_theme(shown, scheme)  # type: ignore[arg-type]
        shown.wait_for_function(TEXT_IS, arg=[shown.locator(".nbopt-Strong").element_handle(), dark])
        colours.add(verdict.evaluate("element => getComputedStyle(element).color"))
    assert len(colours) == 2


def test_on_a_narrow_page_the_table_scrolls_and_the_page_does_not(lab: Lab, open_page: OpenPage) -> None:
    page = open_page(width=700, height=800)
    open_notebook(page, lab, lab.write("narrow.ipynb", [LAYERED._repr_mimebundle_()], kernel=False), kernel=False)
    scroller = page.locator(".nbopt-Scroller")
    expect(scroller).to_be_visible()
    assert scroller.evaluate("element => element.scrollWidth > element.clientWidth")
    assert page.locator(".nbopt-Workload").evaluate("element => element.scrollWidth <= element.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(shown: Page, scheme: str) -> None:
    set_theme(shown, scheme)  # type: ignore[arg-type]
    shown.get_by_label("Compare quantize/openvino", exact=True).check()
    shown.get_by_label("Compare prune/openvino", exact=True).check()
    slide(shown, "drop", "ArrowLeft", 2)
    shown.locator(".nbopt-Columns summary").click()
    assert serious_faults(shown, ".nbopt-Comparison") == []


PAINT = """
async ([mime, data]) => {
  const { rendermime } = window.jupyterapp.shell.currentWidget.content;
  const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const times = [];
  for (let round = 0; round < 5; round += 1) {
    const model = rendermime.createModel({ data: { [mime]: data } });
    const renderer = rendermime.createRenderer(mime);
    const started = performance.now();
    await renderer.renderModel(model);
    document.body.append(renderer.node);
    renderer.node.getBoundingClientRect();
    await frame();
    times.push(performance.now() - started);
    renderer.node.remove();
    renderer.dispose();
  }
  return Math.min(...times);
}
"""

SORT = """
async () => {
  const times = [];
  for (let round = 0; round < 6; round += 1) {
    const started = performance.now();
    document.querySelector(".nbopt-Sort[data-column='speedup']").click();
    document.querySelector('.nbopt-Table').getBoundingClientRect();
    times.push(performance.now() - started);
  }
  return Math.min(...times);
}
"""


def test_two_thousand_rows_paint_sort_and_scroll_at_once(page: Page, lab: Lab) -> None:
    comparison = many(2000)
    bundle = comparison._repr_mimebundle_()
    open_notebook(page, lab, lab.write("many.ipynb", [bundle], kernel=False), kernel=False)
    expect(page.locator(".nbopt-Count")).to_have_text("2000 rows")
    assert page.locator(".nbopt-Row").count() < 100
    paint = page.evaluate(PAINT, [MIME, bundle[MIME]])
    sort = page.evaluate(SORT)
    print(f"2,000 rows: first paint {paint:.0f} ms, sort {sort:.0f} ms")
    assert paint < FIRST_PAINT_MS
    assert sort < SORT_MS
    scroller = page.locator(".nbopt-Scroller")
    scroller.evaluate("element => { element.scrollTop = element.scrollHeight }")
    last = page.locator(".nbopt-Row[aria-rowindex='2001']")
    expect(last).to_be_visible()
    assert page.locator(".nbopt-Row").count() < 100
    page.locator(".nbopt-Filter").fill("variant 1999")
    expect(page.locator(".nbopt-Row")).to_have_count(0)
    page.locator(".nbopt-Filter").fill("variant 1998")
    expect(page.locator(".nbopt-Row")).to_have_count(1)
