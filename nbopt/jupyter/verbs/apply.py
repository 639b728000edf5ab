"""`%optimize apply`: put a run's model into a variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.artifacts import load
from nbopt.errors import ArtifactError, OptionError
from nbopt.history import told
from nbopt.jupyter.options import Output
from nbopt.jupyter.session import MISSING, Applied
from nbopt.jupyter.verbs import Verb
from nbopt.options import option
from nbopt.sheet import Sheet

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session
    from nbopt.runs import Run

FORMS = ("artifact", "model")


@dataclass(frozen=True)
class Apply(Verb):
    """Put what was measured, the exported file, into a variable; or the framework's model of the same recipe."""

    word: ClassVar[str] = "apply"
    summary: ClassVar[str] = "put a run's model into a variable; undo takes it out again"
    takes: ClassVar[tuple[str, ...]] = ("name",)
    needs: ClassVar[tuple[str, ...]] = ("name",)
    usage: ClassVar[str] = "%optimize apply NAME -o VARIABLE"
    binds: ClassVar[bool] = True
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize apply quantize/onnxruntime -o fast_model",
        "%optimize apply {q8.best(max_drop=0.01)} -o fast_model",
        "%optimize apply prune/torch --form model -o model",
    )

    name: str | Any = option("", "name of the run, first letters of its id, or a variable")
    form: str = option(
        "artifact",
        "artifact: the file as it was measured, whose .predict(x) gives outputs; model: the torch or Keras model "
        "of the same recipe, which can be trained on",
        choices=FORMS,
    )

    def run(self, session: Session, request: Request) -> Sheet:
        """Bind the variable, and tell how it is used and taken back."""
        name = request.group(Output).o
        if name is None:
            raise OptionError("a variable for the model", "none", f"%optimize apply {self.name} -o fast_model")
        run = session.run_named(self.name)
        value = self._value(run)
        session.undone.append(Applied(name, session.names.get(name, MISSING), run.name))
        session.names[name] = value
        how = f"{name}.predict(x)" if self.form == "artifact" else f"{name}(x), a {type(value).__name__}"
        return Sheet(rows=(("applied", f"{told(run)}, in {name}"), ("use", how), ("take back", "%optimize undo")))

    def _value(self, run: Run) -> Any:
        if self.form == "artifact":
            return load(run.path)
        try:
            return run.model
        except ArtifactError as error:
            do = f"%optimize apply {run.name} -o fast_model takes the file, whose .predict(x) works"
            raise ArtifactError(error.expected, error.came, do) from error
