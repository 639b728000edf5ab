"""The body of a cell magic: its value, its errors, its names."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from nbopt.errors import OptionError
from nbopt.jupyter.cell import Body, CellSyntaxError, awaited
from tests.jupyter.conftest import Shell


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 1", 2),
        ("a = 3\na", 3),
        ("a = 3\na;", 3),
        ("a = 3\na  # the model\n\n", 3),
        ("def f():\n    return 5\nf()", 5),
        ("import asyncio\nawait asyncio.sleep(0, 7)", 7),
        ("import asyncio\nb = await asyncio.sleep(0, 8)\nb", 8),
        ("%timeit -n1 -r1 -q pass\n4", 4),
        ("v = %pwd\nv[:0] + 'w'", "w"),
    ],
)
def test_the_last_expression_is_the_value(shell: Shell, source: str, value: object) -> None:
    assert Body(shell.ipython, source).run() == value


def test_await_works_while_a_loop_is_running(shell: Shell) -> None:
    import asyncio

    async def cell() -> object:
        return Body(shell.ipython, "import asyncio\nawait asyncio.sleep(0.01, 9)").run()

    assert asyncio.run(cell()) == 9


def test_an_error_of_an_awaited_body_arrives(shell: Shell) -> None:
    import asyncio

    async def cell() -> object:
        return Body(shell.ipython, "import asyncio\nawait asyncio.sleep(0)\n1 / 0").run()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(cell())


def test_an_interrupt_ends_an_awaited_body_too() -> None:
    """Else a training would go on beside the next cells."""
    import asyncio

    ended: list[str] = []

    async def training() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("training")

    async def cell() -> None:
        awaited(training())

    # As in a kernel, whose loop leaves the interrupt to Python.
    loop = asyncio.new_event_loop()
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        loop.close()
    ends = time.monotonic() + 10
    while not ended and time.monotonic() < ends:
        time.sleep(0.02)
    assert ended == ["training"]


def test_names_are_the_users(shell: Shell) -> None:
    before = set(shell.names)
    body = Body(shell.ipython, "import os.path as p\ndef g(): pass\nfor i in [1]: pass\nk, (m, *n) = 1, (2, 3)\nm")
    assert body.assigned == {"p", "g", "i", "k", "m", "n"}
    assert body.run() == 2
    assert set(shell.names) - before == body.assigned


def test_it_runs_again(shell: Shell) -> None:
    body = Body(shell.ipython, "count = globals().get('count', 0) + 1\ncount")
    assert [body.run(), body.run(), body.run()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("source", "came"),
    [("a = 1", "`a = 1`"), ("for i in []:\n    i", "`for i in []:`"), ("# nothing\n", "no statement")],
)
def test_a_body_without_a_value_is_refused(shell: Shell, source: str, came: str) -> None:
    with pytest.raises(OptionError, match="last line is an expression") as caught:
        Body(shell.ipython, source)
    assert caught.value.came == came


def test_an_error_shows_the_users_lines_with_the_cells_numbers(shell: Shell) -> None:
    error = shell.error("%%optimize quantize\ndef broken():\n    return 1 / 0\n\nbroken()")
    assert isinstance(error, ZeroDivisionError)
    shown = shell.shown()
    assert "line 5" in shown
    assert "line 3" in shown
    assert "return 1 / 0" in shown
    assert "nbopt" not in shown
    assert "run_cell_magic" not in shown
    assert f"In[{shell.ipython.execution_count - 1}]" in shown


def test_an_error_in_a_library_shows_its_frames_too(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("def fail():\n    raise LookupError('inside')\n")
    shell.names["__name__"] = "__main__"
    error = shell.error(
        f"%%optimize quantize\nimport sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport theirs\ntheirs.fail()"
    )
    assert isinstance(error, LookupError)
    assert "theirs.py" in shell.shown()


def test_a_syntax_error_shows_as_pythons(shell: Shell) -> None:
    error = shell.error("%%optimize quantize\nx = 1\nx = = 2\nx")
    assert isinstance(error, CellSyntaxError)
    shown = shell.shown()
    assert "line 3" in shown
    assert "SyntaxError" in shown
    assert "x = = 2" in shown
    assert "nbopt" not in shown


def test_a_body_that_gives_none_says_so(shell: Shell) -> None:
    error = shell.error("%%optimize quantize\nprint('made')")
    assert "`print('made')`, which gives None" in str(error)


def test_a_slip_in_the_line_is_told_before_the_body_runs(shell: Shell) -> None:
    error = shell.error("%%optimize quantize --valid vlid\nran = True\nran")
    assert isinstance(error, OptionError)
    assert "ran" not in shell.names


def test_a_verb_without_a_cell_form_says_so(shell: Shell) -> None:
    error = shell.error("%%optimize compare\nran = True\nran")
    assert isinstance(error, OptionError)
    assert "compare as a line" in str(error)
    assert "ran" not in shell.names


def test_a_wrong_magic_in_the_body_fails_the_cell(shell: Shell) -> None:
    error = shell.error("%%optimize quantize\n%nosuchmagic\n1")
    assert isinstance(error, OptionError)
    assert "nosuchmagic" in str(error)
