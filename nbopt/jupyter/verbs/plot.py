"""`%optimize plot`: a figure of the kept runs, or of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.comparison import Limits
from nbopt.errors import OptionError
from nbopt.jupyter.verbs import Verb
from nbopt.options import option
from nbopt.render.plots import KINDS, figure, layers

if TYPE_CHECKING:
    from nbopt.charts import Figure
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Plot(Verb):
    """Draw a figure; it has a static form, so that it stays readable in any export."""

    word: ClassVar[str] = "plot"
    summary: ClassVar[str] = "draw the Pareto front under limits, the latencies, or the layers of a run"
    takes: ClassVar[tuple[str, ...]] = ("kind", "names...")
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize plot pareto --max-drop 1%",
        "%optimize plot latency q8",
        "%optimize plot layers quantize/onnxruntime",
    )

    kind: str = option("pareto", "what is drawn", choices=KINDS)
    names: tuple[str | Any, ...] = option((), "variables that hold results, names of runs; else all that are kept")
    max_drop: float | None = option(None, "quality that may be lost; what loses more is grey (1%, 1pt)", low=0)
    max_size: int | None = option(None, "largest file; what is larger is grey", low=0, unit="bytes")
    max_latency: float | None = option(None, "longest latency; what takes longer is grey", low=0, unit="ms")

    def run(self, session: Session, request: Request) -> Figure:
        """Return the figure."""
        limits = Limits(max_drop=self.max_drop, max_size=self.max_size, max_latency=self.max_latency)
        if self.kind != "layers":
            return figure(session.comparison(self.names), self.kind, limits)
        if len(self.names) > 1:
            raise OptionError("layers of one run", f"{len(self.names)} names", "%optimize plot layers RUN")
        return layers(session.run_named(self.names[0]) if self.names else session.comparison(()).choose()[0])
