"""The body of a cell magic: Python that runs in the user's variables, whose last expression is a value."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import threading
from collections.abc import Coroutine
from functools import cached_property
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from nbopt.errors import NbOptError, OptionError
from nbopt.jupyter.jobs import raise_in

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class CellSyntaxError(NbOptError):
    """The body is not Python; it shows as Python's own error does, without nbopt's frames."""

    def __init__(self, error: SyntaxError, lines: list[str]) -> None:
        self._lines = lines
        text = (error.text or "").strip()
        super().__init__(f"{error.msg} (line {error.lineno}): {text}")

    def _render_traceback_(self) -> list[str]:
        return self._lines


class Body:
    """Hold a body that was read and can be run, any number of times.

    Args:
        shell: The IPython shell; its transforms (magics, `!`) and its names are used.
        source: The body, without the line of the magic.
        gives: What its value is: "the model", "the score".

    Raises:
        OptionError: It does not end with an expression.
        CellSyntaxError: It is not Python.
    """

    def __init__(self, shell: InteractiveShell, source: str, gives: str = "the model") -> None:
        self._shell = shell
        # The line of the magic is the cell's first, so that numbers in a traceback are the cell's.
        text = "\n" + shell.transform_cell(source)
        self.text = text
        self.file = shell.compile.cache(text, _cell_number(shell), raw_code="\n" + source)
        try:
            with shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
                tree = shell.transform_ast(shell.compile.ast_parse(text, self.file))
        except SyntaxError as error:
            raise CellSyntaxError(error, shell.SyntaxTB.structured_traceback(SyntaxError, error, [])) from None
        if not tree.body or not isinstance(tree.body[-1], ast.Expr):
            came = f"`{ast.unparse(tree.body[-1]).splitlines()[0]}`" if tree.body else "no statement"
            raise OptionError(
                f"a body whose last line is an expression: its value is {gives}",
                came,
                f"end the cell with {gives} alone on a line",
            )
        last = tree.body.pop()
        self.last = f"`{ast.unparse(last)}`"
        self.result = last.value
        self._tree, self._value = tree, ast.Expression(last.value)

    @cached_property
    def assigned(self) -> set[str]:
        """Return the names that the body gives a value."""
        found = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        return found

    @cached_property
    def read(self) -> set[str]:
        """Return the names whose value the body takes, in its functions too."""
        parts = [self._tree, self._value]
        nodes = (node for part in parts for node in ast.walk(part))
        return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}

    @cached_property
    def _codes(self) -> tuple[CodeType, CodeType]:
        with self._shell.compile.extra_flags(ast.PyCF_ALLOW_TOP_LEVEL_AWAIT):
            statements = self._shell.compile(self._tree, self.file, "exec")
            return statements, self._shell.compile(self._value, self.file, "eval")

    def run(self, scope: dict[str, Any] | None = None) -> Any:
        """Run it and return the value of its last expression.

        Args:
            scope: The variables; None takes the user's own, which the body then changes.

        Raises:
            BaseException: Whatever the body raises, showing the body's own frames only.
        """
        statements, value = self._codes
        try:
            self._execute(statements, scope)
            return self._execute(value, scope)
        except UsageError as error:
            # Batch runs count a cell that ends in IPython's UsageError as one that passed.
            raise OptionError(str(error)) from error
        except BaseException as error:
            if scope is None:
                self._shorten(error)
            raise

    def _execute(self, code: CodeType, scope: dict[str, Any] | None) -> Any:
        shell = self._shell
        result = eval(code, shell.user_global_ns, shell.user_ns) if scope is None else eval(code, scope)
        return awaited(result) if code.co_flags & inspect.CO_COROUTINE else result

    def _shorten(self, error: BaseException) -> None:
        """Make the error show the body's frames, without those of nbopt and IPython around them."""
        if isinstance(error, NbOptError):
            return
        frame: TracebackType | None = error.__traceback__
        while frame is not None and frame.tb_frame.f_code.co_filename != self.file:
            frame = frame.tb_next
        if frame is None:
            return
        lines = self._shell.InteractiveTB.structured_traceback(type(error), error, frame, tb_offset=0)
        # IPython asks the exception itself how it is shown. Not every exception takes attributes.
        with contextlib.suppress(AttributeError, TypeError):
            error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]


def awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return what a coroutine gives, also where a loop is running in this thread, as in a kernel."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[Any] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def held() -> Any:
        loops.append(asyncio.get_running_loop())
        return await coroutine

    def work() -> None:
        try:
            outcome.append(asyncio.run(held()))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            outcome.append(error)

    thread = threading.Thread(target=work, name="nbopt-cell")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        # It would go on beside the next cells. A loop that waits has to be woken to be interrupted.
        if thread.ident is not None:
            raise_in(thread.ident, KeyboardInterrupt)
        for loop in loops:
            with contextlib.suppress(RuntimeError):  # closed by now
                loop.call_soon_threadsafe(bool)
        raise
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _cell_number(shell: InteractiveShell) -> int:
    """Return the n of In[n]; IPython 9 counts before it runs a cell, IPython 8 after."""
    history = shell.history_manager
    return len(history.input_hist_raw) - 1 if history is not None else shell.execution_count
