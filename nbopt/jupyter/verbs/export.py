"""`%optimize export`: take a run's file away."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nbopt.artifacts import files_of, sidecar_of, size_of
from nbopt.errors import ExportError
from nbopt.history import renamed, size_text, told
from nbopt.jupyter.verbs import Verb
from nbopt.options import option
from nbopt.runs import Run
from nbopt.sheet import Sheet, bundle

if TYPE_CHECKING:
    from nbopt.jupyter.options import Request
    from nbopt.jupyter.session import Session


@dataclass(frozen=True)
class Written:
    """Tell what an export wrote and how it is loaded.

    Args:
        run: The run.
        path: The model's file.
    """

    run: Run
    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def sheet(self) -> Sheet:
        """Return it as pairs of words."""
        beside = [p for p in (*files_of(self.path), sidecar_of(self.path)) if p != self.path and p.is_file()]
        names = ", ".join(str(p.relative_to(self.path) if self.path in p.parents else p.name) for p in beside)
        rows = [
            ("wrote", f"{self.path} ({size_text(size_of(self.path))}), {told(self.run)}"),
            ("beside it", names),
            ("load", f"nbopt.load({str(self.path)!r}).predict(x)"),
        ]
        return Sheet(rows=tuple(row for row in rows if row[1]))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return bundle([self.sheet()])

    def __repr__(self) -> str:
        return self.sheet().text()


@dataclass(frozen=True)
class Export(Verb):
    """Copy a run's file, with the manifest that says how it was measured."""

    word: ClassVar[str] = "export"
    summary: ClassVar[str] = "write a run's model to a file"
    takes: ClassVar[tuple[str, ...]] = ("name", "path")
    needs: ClassVar[tuple[str, ...]] = ("name", "path")
    examples: ClassVar[tuple[str, ...]] = (
        "%optimize export quantize/onnxruntime model.onnx",
        "%optimize export {q8.best(max_drop=0.01)} models/ --force",
    )

    name: str | Any = option("", "name of the run, first letters of its id, or a variable")
    path: str | Any = option("", "file to write, its ending may be left out; a folder takes the run's name")
    force: bool = option(False, "overwrite a file that is there")

    def run(self, session: Session, request: Request) -> Written:
        """Write the file."""
        run = session.run_named(self.name)
        source = run.path
        target = Path(self.path).expanduser()
        if target.is_dir() or str(self.path).endswith("/"):
            target = target / renamed(run).name.replace("/", "-").replace(" ", "-")
        if target.suffix != source.suffix and not target.suffix:
            target = target.with_name(target.name + source.suffix)
        if target.exists() and not self.force:
            raise ExportError("a path that is free", f"{target} is there", "another path, or --force")
        try:
            return Written(run, run.export(target))
        except OSError as error:
            raise ExportError(
                "a folder that can be written", f"{target.parent}: {error.strerror or error}", "another path"
            ) from error
