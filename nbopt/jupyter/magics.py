"""The `%optimize` magic: a thin skin that loads the rest of nbopt when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from IPython.core.completer import context_matcher
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from nbopt.jupyter.configurable import LazySettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from nbopt.jupyter.session import Session
    from nbopt.runs import Run

COMPARISON = "nbopt.comparison.Comparison"
"""By its name: `%load_ext nbopt` shall not wait for what it needs."""


def _new_panel(session: Session) -> Any:
    """Return a panel over a session.

    Raises:
        MissingExtra: There is no ipywidgets.
    """
    from nbopt.errors import MissingExtra

    try:
        import ipywidgets  # noqa: F401 - an extra, which not every kernel has
    except ImportError as error:
        raise MissingExtra("ipywidgets", "notebook", "the panel") from error
    from nbopt.jupyter.panel import Panel

    return Panel(session)


@magics_class
class OptimizeMagics(Magics):
    """Hold the magic and what it has bound.

    Args:
        shell: The IPython shell.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._session: Session | None = None
        self.settings = LazySettings(shell)

        # A plain function: the decorator marks it, and a bound method can't be marked.
        @context_matcher(identifier="nbopt.optimize", priority=100)
        def matcher(context: CompletionContext) -> SimpleMatcherResult:
            if "%optimize" not in context.text_until_cursor:
                return {"completions": []}  # what follows takes 0.1 s to import, and most lines are not ours
            from nbopt.jupyter.completion import Known, complete

            return complete(context, Known(shell.user_ns, self._runs))

        self.matcher = matcher

    def _runs(self) -> Sequence[Run]:
        return self.session.runs()

    @property
    def session(self) -> Session:
        """Return what this shell has bound."""
        if self._session is None:
            from nbopt.jupyter.arguments import read_line
            from nbopt.jupyter.session import Session

            session = Session(self.shell)
            # A verb lies below the parser that finds it and the panel that calls it: both come by hand.
            session.settings = self.settings
            session.read = lambda line: read_line(line, session.names, session.defaults).request
            session.new_panel = _new_panel
            self.shell.display_formatter.mimebundle_formatter.for_type(COMPARISON, session.take_shown)
            self._session = session
        return self._session

    @no_var_expand
    @line_cell_magic
    def optimize(self, line: str, cell: str | None = None) -> Any:
        """Make the model in this notebook smaller, faster or better, and measure it.

        Bind a model and measure its baselines:

            %optimize use model --train train_dl --valid valid_dl --metric accuracy

        Apply one technique, or several in order; the result is a table, in Out[n] and in q8:

            %optimize quantize --dtype int8 -o q8
            %optimize prune --sparsity 0.5 --structured | quantize

        Read, choose, take away:

            %optimize compare
            %optimize show quantize/openvino
            %optimize export quantize/openvino model.onnx

        As a cell, the body is Python and its last expression is the model:

            %%optimize quantize --valid valid_dl
            model.eval()

        `%optimize help` lists all verbs and techniques, `%optimize help quantize` the options of one.
        """
        from nbopt.jupyter.command import run

        return run(self.session, line, cell)
