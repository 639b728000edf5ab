"""`%optimize use`: bind a model with its data, and measure the baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.jupyter.verbs import Verb

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Use(Verb):
    """Bind a model with its data; every technique after it works on this."""

    word: ClassVar[str] = "use"
    summary: ClassVar[str] = "bind the model and its data, and measure the baselines"
    # A cell gives the model by its body, so the parser does not need it.
    usage: ClassVar[str] = "%optimize use MODEL"
    takes: ClassVar[tuple[str, ...]] = ("model",)
    shares: ClassVar[tuple[str, ...]] = ("binding", "running", "output")
    body: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize use model --train train_dl --valid valid_dl --metric accuracy",
        "%optimize use model --valid x_valid,y_valid --metric auc --runtimes all",
    )

    def run(self, session: Session, request: Request) -> Any:
        """Bind, show the card, and return the baselines."""
        work = session.bind(request.binding)
        session.show_card(work)
        return session.optimize(work, request)
