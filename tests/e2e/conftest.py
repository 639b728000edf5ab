"""One JupyterLab and one Chromium for the session, with folders of their own, and a watch on each page.

A test takes `lab` for the server and `page` for a page in which JupyterLab runs: the one that the test before left,
tidied, since to load JupyterLab takes longer than most tests. A test that reloads, resizes or needs several pages takes
`open_page` for fresh ones. When the test ends, it fails for anything that a console called an error, and for any
request that left the server's address.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent.parent
EXTENSION = ROOT / "nbopt" / "labextension"
"""Where `npm run build` in labextension/ writes; JupyterLab serves it from there."""

AXE = ROOT / "labextension" / "node_modules" / "axe-core" / "axe.min.js"

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 120_000
"""A busy machine of two cores takes its time; every wait is for a condition, so this costs nothing where it is met."""

SETTINGS = {
    # A notebook that draws only the cells in view hides the others from a test.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # A busy machine's kernel may take more than the usual second, after which only words of the cell are offered.
    "@jupyterlab/completer-extension/manager": {"providerTimeout": 30_000},
    # Saving is each test's own act.
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}

HARMLESS = (
    # JupyterLab asks for a workspace and for a session that need not be there yet.
    re.compile(r"/api/(workspaces|sessions|kernels|settings)/"),
    # Chromium without a GPU says so when a page draws.
    re.compile(r"GPU stall|WebGL", re.IGNORECASE),
    # JupyterLab's own debugger and inspector ask each new kernel and each moved cursor, and complain where
    # the notebook is closed (as after each test) before the answer, and so does its session that was about to start;
    # nbopt sends no such request and throws no such error.
    re.compile(r"Canceled future for (debug|inspect|kernel_info|history)_request message before replies"),
    re.compile(r"^uncaught: Disposed$"),
)

expect.set_options(timeout=WAIT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path is not None, "chromium is not installed: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@dataclass
class Lab:
    """A running JupyterLab.

    Args:
        url: Its address.
        token: What it asks for.
        folder: Where notebooks lie.
        data: Its data folder, where the secret lies that notebooks are trusted by.
    """

    url: str
    token: str
    folder: Path
    data: Path
    opened: int = field(default=0)

    def address(self, path: str = "") -> str:
        """Return the address that opens a file, in a workspace that no other page shares."""
        self.opened += 1
        tree = f"/tree/{path}" if path else ""
        return f"{self.url}/lab/workspaces/page{self.opened}{tree}?token={self.token}"

    def write(
        self, name: str, cells: Sequence[str | dict[str, Any]], *, trust: bool = False, kernel: bool = True
    ) -> str:
        """Write a notebook, and return its name.

        Args:
            name: File's name.
            cells: Sources of cells, or mime bundles that a cell has as its output.
            trust: Sign it, as running it here would.
            kernel: Name a kernel in it; without, JupyterLab asks for one.
        """
        book = nbformat.v4.new_notebook()
        for number, cell in enumerate(cells, 1):
            if isinstance(cell, str):
                made = nbformat.v4.new_code_cell(cell)
            else:
                made = nbformat.v4.new_code_cell("comparison", execution_count=number)
                made.outputs = [nbformat.v4.new_output("execute_result", data=cell, execution_count=number)]
            book.cells.append(made)
        if kernel:
            book.metadata["kernelspec"] = {
                "name": "python3",
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
            }
        if trust:
            NotebookNotary(data_dir=str(self.data)).sign(book)
        nbformat.write(book, self.folder / name)
        return name

    def ask(self, path: str, method: str = "GET") -> Any:
        """Return what the server's REST interface answers."""
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def stop_kernels(self) -> None:
        """End every kernel, so that none of one test takes time from the next."""
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with jupyterlab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@contextmanager
def jupyterlab(home: Path, program: Literal["jupyterlab", "notebook"] = "jupyterlab") -> Iterator[Lab]:
    """Run a JupyterLab, or a Notebook 7, whose folders all lie below `home`."""
    folders = {name: home / name for name in ("config", "data", "runtime", "settings", "workspaces", "ipython", "work")}
    for folder in folders.values():
        folder.mkdir()
    for plugin, values in SETTINGS.items():
        file = folders["settings"] / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    if EXTENSION.is_dir():
        (folders["data"] / "labextensions").mkdir()
        (folders["data"] / "labextensions" / "nbopt").symlink_to(EXTENSION)
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folders["config"]),
        "JUPYTER_DATA_DIR": str(folders["data"]),
        "JUPYTER_RUNTIME_DIR": str(folders["runtime"]),
        "JUPYTERLAB_SETTINGS_DIR": str(folders["settings"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(folders["workspaces"]),
        "IPYTHONDIR": str(folders["ipython"]),
        "NBOPT_HOME": str(home / "nbopt"),
        # The kernel imports the sources that are tested, wherever it is started.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    command = [
        sys.executable,
        "-m",
        program,
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folders['work']}",
    ]
    if program == "jupyterlab":
        # Tests ask the page's own application what no click shows.
        command += ["--LabApp.extension_manager=readonly", "--LabApp.news_url=", "--LabApp.expose_app_in_browser=True"]
    if os.geteuid() == 0:
        command.append("--allow-root")
    log = home / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, cwd=folders["work"])
    running = Lab(f"http://127.0.0.1:{port}", token, folders["work"], folders["data"])
    try:
        _wait_for(lambda: running.ask("status"), server, log)
        yield running
        running.stop_kernels()
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(answer: Callable[[], Any], server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + WAIT_MS / 1000
    while True:
        try:
            answer()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.1)


@dataclass
class Watch:
    """What a page did that it should not have."""

    server: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def on(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._error(f"uncaught: {error}"))
        page.on("request", lambda request: self._request(request.url))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._error(f"{message.text} ({message.location.get('url', '')})")

    def _error(self, text: str) -> None:
        if not any(one.search(text) for one in HARMLESS):
            self.errors.append(text)

    def _request(self, url: str) -> None:
        here = (self.server, self.server.replace("http", "ws", 1), "data:", "blob:", "file:", "about:")
        if not url.startswith(here):
            self.outside.append(url)


OpenPage = Callable[..., Page]


def _context(browser: Browser, **options: Any) -> BrowserContext:
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT_MS)
    return context


def _judge(watch: Watch) -> None:
    assert watch.errors == []
    assert watch.outside == []


@pytest.fixture
def open_page(browser: Browser, lab: Lab) -> Iterator[OpenPage]:
    """Return a function that opens a watched page; all are closed and judged when the test ends."""
    watch = Watch(lab.url)
    contexts = []

    def opened(*, scheme: Literal["light", "dark"] = "light", width: int = 1400, height: int = 900) -> Page:
        context = _context(browser, color_scheme=scheme, viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        watch.on(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    lab.stop_kernels()
    _judge(watch)


@dataclass
class Desk:
    """The page that is kept from test to test, with what watches it.

    Args:
        browser: Where it is opened.
        lab: The server that it shows.
    """

    browser: Browser
    lab: Lab
    page: Page | None = None
    watch: Watch | None = None

    def take(self) -> tuple[Page, Watch]:
        """Return the page, with JupyterLab in it and nothing open, and a watch that has seen nothing yet."""
        if self.page is None or self.watch is None:
            self.page = _context(self.browser, viewport={"width": 1400, "height": 900}).new_page()
            self.watch = Watch(self.lab.url)
            self.watch.on(self.page)
            self.page.goto(self.lab.address())
            expect(self.page.locator(".jp-LauncherCard").first).to_be_visible()
        return self.page, self.watch

    def tidy(self) -> None:
        """Close what a test opened, and put back what it changed."""
        assert self.page is not None
        self.page.keyboard.press("Escape")  # a palette or a dialog
        self.page.evaluate(TIDY)
        expect(self.page.locator(".jp-Notebook, .jp-Dialog, .nbopt-Comparison")).to_have_count(0)
        set_theme(self.page, "light")

    def leave(self) -> None:
        """Close the page: the next test gets a new one."""
        if self.page is not None:
            self.page.context.close()
        self.page = self.watch = None


TIDY = """
async () => {
  const { commands, shell } = window.jupyterapp;
  delete window.hacked;
  for (const widget of [...shell.widgets('main')]) {
    if (widget.context) {
      // What is closed while it starts complains; one that waits for a kernel to be chosen never has started.
      const started = Promise.all([widget.context.ready, widget.context.sessionContext.ready]);
      await Promise.race([started, new Promise(resolve => setTimeout(resolve, 1000))]);
      widget.context.model.dirty = false; // or it asks whether to save
    }
    widget.close();
  }
  shell.collapseRight();
  await commands.execute('filebrowser:activate');
}
"""


@pytest.fixture(scope="session")
def desk(browser: Browser, lab: Lab) -> Iterator[Desk]:
    kept = Desk(browser, lab)
    yield kept
    kept.leave()


@pytest.fixture
def page(desk: Desk, lab: Lab, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Return the page in which JupyterLab runs, with nothing open; it is tidied and judged when the test ends."""
    page, watch = desk.take()
    failures = request.session.testsfailed
    yield page
    try:
        if request.session.testsfailed == failures:
            desk.tidy()
        else:
            desk.leave()  # what else such a test left is not known
    except BaseException:
        desk.leave()
        raise
    finally:
        lab.stop_kernels()
    if watch.errors or watch.outside:
        desk.leave()
    _judge(watch)


def open_path(page: Page, lab: Lab, path: str) -> None:
    """Open a file in JupyterLab: in the one that runs in the page already, where it does."""
    if page.url.startswith(f"{lab.url}/lab"):
        # Not awaited: a notebook's kernel is asked for first.
        page.evaluate("path => void window.jupyterapp.commands.execute('docmanager:open', { path })", path)
    else:
        page.goto(lab.address(path))


def open_notebook(page: Page, lab: Lab, name: str, *, kernel: bool = True) -> None:
    """Open a notebook in JupyterLab, and wait until it can be used.

    Args:
        page: Where.
        lab: The server.
        name: The notebook's name.
        kernel: Wait for its kernel; without, refuse the one that JupyterLab offers.
    """
    open_path(page, lab, name)
    expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible()
    if kernel:
        # The notebook's own indicator says idle before there is a kernel.
        expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()
    else:
        refuse_kernel(page)


def refuse_kernel(page: Page) -> None:
    """Answer JupyterLab's question for a kernel with none."""
    # The toolbar has a button of the same name.
    page.locator(".jp-Dialog").get_by_role("button", name="No Kernel").click()
    expect(page.locator(".jp-Dialog")).to_have_count(0)


TEXT_IS_DARK = """wanted => {
  const [red, green, blue] = getComputedStyle(document.body).color.match(/[\\d.]+/g).map(Number);
  return (red + green + blue) / 3 < 128 === wanted;
}"""


def set_theme(page: Page, scheme: Literal["light", "dark"]) -> None:
    """Switch JupyterLab's theme, as its menu does."""
    theme = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}[scheme]
    is_light = "true" if scheme == "light" else "false"
    if page.locator(f"body[data-jp-theme-light='{is_light}']").count():
        return
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    expect(page.locator(f"body[data-jp-theme-light='{is_light}']")).to_have_count(1)
    # The page says which theme it has before that theme's style has come.
    page.wait_for_function(TEXT_IS_DARK, arg=scheme == "light")
    # JupyterLab 4.6 takes its splash away 200 ms later, and throws where another switch did so before.
    expect(page.locator("#jupyterlab-splash")).to_have_count(0)


def serious_faults(page: Page, selector: str) -> list[tuple[str, str, str]]:
    """Return what axe calls serious or critical below an element: the rule, an element, and what to mend."""
    page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async selector => (await axe.run(selector)).violations", selector)
    return [
        (fault["id"], node["html"][:160], node["failureSummary"])
        for fault in found
        if fault["impact"] in {"serious", "critical"}
        for node in fault["nodes"][:3]
    ]


def run_cell(page: Page, number: int) -> None:
    """Run a cell, counted from 0, and wait until it is done."""
    cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+Enter")
    expect(cell.locator(".jp-InputPrompt").first).to_have_text(re.compile(r"\[\d+\]:"))
