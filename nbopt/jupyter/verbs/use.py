"""`%optimize use`: bind a model with its data, and measure the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.jupyter.verbs import Verb

if TYPE_CHECKING:
    from nbopt.jupyter.arguments import Command
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Use(Verb):
    """Bind a model with its data; every technique after it works on this."""

    word: ClassVar[str] = "use"
    summary: ClassVar[str] = "Bind the model and its data, and measure the baselines."
    takes: ClassVar[tuple[str, ...]] = ("model",)
    shares: ClassVar[tuple[str, ...]] = ("binding", "running", "output")
    body: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize use model --train train_dl --valid valid_dl --metric accuracy",
        "%optimize use model --valid x_valid,y_valid --metric auc --runtimes all",
    )

    def run(self, session: Session, command: Command) -> Any:
        """Bind, show the card, and return the baselines."""
        work = session.bind(command.binding)
        session.show_card(work)
        return session.optimize(work, command)
