"""%config NbOpt: defaults of every line, checked as the options are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from IPython.core.completer import provisionalcompleter

from nbopt.errors import NbOptWarning
from nbopt.jupyter.arguments import read_line
from nbopt.jupyter.options import Running
from nbopt.recipe.grammar import options_of
from tests.jupyter.conftest import Shell


@pytest.fixture
def session(shell: Shell) -> Iterator[object]:
    yield shell.ipython.magics_manager.registry["OptimizeMagics"].session
    # IPython keeps what was configured for whoever is made later.
    shell.ipython.config.pop("NbOpt", None)


def test_it_lists_every_option_with_its_help(shell: Shell) -> None:
    shell.ok("%config")
    assert "NbOpt" in shell.shown()
    shell.ok("%config NbOpt")
    shown = shell.shown()
    assert all(f"NbOpt.{name}=" in shown for name in options_of(Running))
    assert "how long to time" in shown


def test_a_line_that_says_nothing_takes_it(shell: Shell, session: object) -> None:
    shell.ok("%config NbOpt.measure = 'full'")
    shell.ok("%config NbOpt.runtimes = 'onnxruntime,openvino'")
    shell.ok("%config NbOpt.max_drop = '1%'")
    shell.ok("%config NbOpt.seed = 3")
    assert shell.ok("%config NbOpt.max_drop") == 0.01
    defaults = session.defaults  # type: ignore[attr-defined]
    request = read_line("quantize --measure quick", {}, defaults).request
    running = request.group(Running)
    assert (running.measure, running.runtimes, running.max_drop) == ("quick", ("onnxruntime", "openvino"), 0.01)
    assert request.recipe.seed == running.seed == 3
    assert read_line("use --seed 0", {}, defaults).request.group(Running).seed == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("NbOpt.measure = 'slow'", "quick, full"),
        ("NbOpt.runtimes = ['onnx']", "onnxruntime"),
        ("NbOpt.seeds = 0", "between 1 and 100"),
    ],
)
def test_what_can_not_be_used_is_told_at_once_and_not_taken(
    shell: Shell, session: object, line: str, words: str
) -> None:
    with pytest.warns(NbOptWarning, match="NbOpt") as told:
        shell.ok(f"%config {line}")
    assert words in str(told[0].message)
    assert session.defaults == {}  # type: ignore[attr-defined]


def test_it_is_completed(shell: Shell) -> None:
    text = "%config NbOpt.mea"
    with provisionalcompleter():
        found = [match.text for match in shell.ipython.Completer.completions(text, len(text))]
    assert any("measure" in each for each in found), found
