"""One call of the magic: the line read, the body run, the work done, the result bound."""

from __future__ import annotations

import re
from typing import Any

from nbopt.errors import Interrupted, ModelError, OptionError
from nbopt.jupyter.arguments import Command, read_line
from nbopt.jupyter.cell import Body
from nbopt.jupyter.scoring import body_of, refuse_scoring, search_body, with_builder
from nbopt.jupyter.session import Session
from nbopt.recipe.names import UndefinedName

_ALONE = re.compile(r"\s*%optimize\b.*;\s*")


def run(session: Session, line: str, cell: str | None = None) -> Any:
    """Carry out `%optimize LINE`, or `%%optimize LINE` with a body.

    Returns:
        The result, which the notebook shows as Out[n].

    Raises:
        NbOptError: Something can't be done; the message says what to do.
        Interrupted: The user interrupted; what was done is bound and shown.
    """
    # What is under way is kept on disk with its line, so that `%optimize attach` can go on with it.
    session.line, session.body = line.strip(), cell or ""
    try:
        result, command = _done(session, line, cell)
    except Interrupted:
        raise
    except KeyboardInterrupt as error:
        if hasattr(error, "_render_traceback_"):
            raise  # it came from the user's own code, and shows that
        raise Interrupted("stopped before a run was finished; nothing was changed") from None
    if command.verb is None or not command.verb.binds:
        session.keep(result, command.request)
    return None if cell is None and _silenced(session, line) else result


def _done(session: Session, line: str, cell: str | None) -> tuple[Any, Command]:
    """Carry the line out, and return the result with the command that was read."""
    kind = "model" if cell is None else body_of(line)
    if cell is not None and kind != "model":
        # The body first: a syntax error is told before anything of the line.
        body = Body(session.shell, cell, "the score" if kind == "objective" else "the untrained model")
        command = read_line(line, session.names, session.defaults)
        if command.verb is None and kind == "candidate":
            refuse_scoring(command.request)
            command = Command(None, with_builder(command.request, body, session.names))
            return _carry_out(session, command), command
        return search_body(session, body, command.request), command
    command = _read(session, line, cell)
    refuse_scoring(command.request)
    return _carry_out(session, command), command


def _read(session: Session, line: str, cell: str | None) -> Command:
    """Read the line and run the body, whose value becomes the command's model."""
    if cell is None:
        return read_line(line, session.names, session.defaults)
    body = Body(session.shell, cell)
    try:
        command = read_line(line, session.names, session.defaults)
    except UndefinedName as error:
        # The body may define what the line names; a slip of the pen is told before the body runs.
        if error.name.split(".")[0] not in body.assigned:
            raise
        command = None
    if command is not None:
        _check_body(command)
    model = body.run()
    if command is None:
        command = read_line(line, session.names, session.defaults)
        _check_body(command)
    if model is None:
        raise ModelError(
            "a body whose last expression is the model",
            f"{body.last}, which gives None",
            "end the cell with the model alone on a line",
        )
    return Command(command.verb, command.request.with_model(model))


def _check_body(command: Command) -> None:
    if not command.takes_body:
        word = command.verb.word if command.verb else ""
        raise OptionError(f"%optimize {word} as a line", "a cell", f"%optimize {word} with one % and no body")
    if "model" in command.request.binding:
        raise OptionError("one model", "--model and a body, whose value is the model", "leave --model out")


def _carry_out(session: Session, command: Command) -> Any:
    if command.verb is not None:
        return command.verb.run(session, command.request)
    return session.optimize(session.current(command.request.binding), command.request)


def _silenced(session: Session, line: str) -> bool:
    """Tell whether the line ends in a semicolon and stands alone, so that nothing shall be shown.

    IPython sees the semicolon inside the magic's text and shows the result all the same; in
    `r = %optimize ...;` the value is wanted.
    """
    if not line.rstrip().endswith(";"):
        return False
    history = session.shell.history_manager
    cells = history.input_hist_raw if history is not None else []
    lines = [text for text in (cells[-1] if cells else "").splitlines() if text.strip()]
    return bool(lines) and _ALONE.fullmatch(lines[-1]) is not None
