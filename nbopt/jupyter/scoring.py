"""A cell whose body gives the score of a `trial`: run once a trial, in a child of the notebook's variables."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import linecache
import re
from types import CodeType
from typing import TYPE_CHECKING, Any

from nbopt.errors import OptionError
from nbopt.jupyter.cell import Body, awaited
from nbopt.jupyter.options import Binding, Request, Running, Scoring
from nbopt.measurement.metrics import METRICS
from nbopt.recipe.grammar import options_of, segments_of, words_of
from nbopt.techniques import all_techniques
from nbopt.tuning import Tuning

if TYPE_CHECKING:
    from nbopt.jupyter.session import Session

TRIAL = "trial"

LIMITS = {"max_latency": "latency_ms", "max_size": "size_bytes", "max_memory": "memory_bytes"}
"""Limits of a line, by the user attribute of the trial that they hold for."""

_OF_RUNS = ("runtimes", "measure", "threads", "seeds", "max_drop", "min_speedup")
_SMALLER = re.compile(r"(^|_)(loss|rmse|mse|mae|error|err|perplexity|nll|latency|regret|cost)$")
_LARGER = re.compile(r"(^|_)(auc|acc|accuracy|f1|r2|precision|recall|reward|average_precision)$")


def body_of(line: str) -> str:
    """Return what the cell of a line's first technique is, as `Technique.body` has it; "model" where it is a verb's."""
    words = segments_of(words_of(line))[0]
    technique = all_techniques().get(words[0].text) if words else None
    return "model" if technique is None else technique.body


def with_builder(request: Request, body: Body, names: dict[str, Any]) -> Request:
    """Return a request whose first technique has a body as the function that builds its candidates.

    Raises:
        OptionError: The line names such a function too.
    """
    first, *rest = request.recipe.techniques
    if getattr(first, "build", None) is not None:
        raise OptionError("one way to build candidates", "--build and a body", "leave --build out, or the body")
    built: Any = dataclasses.replace(first, build=BodyObjective(body, names))  # type: ignore[call-arg]
    return dataclasses.replace(request, recipe=dataclasses.replace(request.recipe, techniques=(built, *rest)))


def refuse_scoring(request: Request) -> None:
    """Refuse options that only a cell's body gives a meaning.

    Raises:
        OptionError: The line has one of them.
    """
    given = request.given.get(Scoring, {})
    if given:
        flag = options_of(Scoring)[next(iter(given))].flag
        raise OptionError("a cell whose body gives the score", f"{flag} on a line without a body", "%%optimize, two %")


class BodyObjective:
    """Hold a body as an objective: called with a trial, it gives the body's last value.

    What the body assigns goes into a copy of the notebook's variables, and is gone after the trial. Objects of the
    notebook that it changes in place stay changed, as in a function.

    Args:
        body: The body.
        names: The notebook's variables, as they stand at each trial.
    """

    def __init__(self, body: Body, names: dict[str, Any]) -> None:
        self._body, self._names = body, names
        self.source, self.file = body.text, body.file

    @property
    def variables(self) -> dict[str, Any]:
        """Return what the body reads of the notebook."""
        known = {name: self._names[name] for name in self._body.read if name in self._names}
        return {name: value for name, value in known.items() if getattr(builtins, name, None) is not value}

    def __call__(self, trial: Any) -> Any:
        """Return the body's value in a trial."""
        return self._body.run({**self._names, TRIAL: trial})

    def __reduce__(self) -> tuple[Any, ...]:
        return ShippedObjective, (self.source, self.file, self.variables)


class ShippedObjective:
    """Be a body's objective in another process, where there is no shell.

    Args:
        source: The body as Python.
        file: What tracebacks call it.
        variables: What it reads.
    """

    def __init__(self, source: str, file: str, variables: dict[str, Any]) -> None:
        self.source, self.file, self.variables = source, file, variables
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        tree = ast.parse(source, file)
        last = tree.body.pop()
        assert isinstance(last, ast.Expr)  # the kernel has read it before
        self._codes = tuple(
            compile(part, file, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            for part, mode in ((tree, "exec"), (ast.Expression(last.value), "eval"))
        )

    def __call__(self, trial: Any) -> Any:
        """Return the body's value in a trial."""
        scope = {"__name__": "__main__", **self.variables, TRIAL: trial}
        results = [_run(code, scope) for code in self._codes]
        return results[-1]


def _run(code: CodeType, scope: dict[str, Any]) -> Any:
    result = eval(code, scope)
    return awaited(result) if code.co_flags & inspect.CO_COROUTINE else result


def search_body(session: Session, body: Body, request: Request) -> Tuning:
    """Search the parameters that a body asks its trial for.

    Raises:
        OptionError: An option has no meaning with such a body, or the direction contradicts the score.
        StudyError: The body gives no number.
        Interrupted: The user interrupted; what was done is bound and shown.
    """
    import nbopt.render  # noqa: F401 - a Tuning shows itself once this is imported
    from nbopt.tuner import tune

    if len(request.recipe.techniques) != 1:
        raise OptionError("one technique with a body that gives a score", request.recipe.text(), "leave the others out")
    technique = request.recipe.techniques[0]
    _refuse_others(request)
    running, scoring = request.group(Running), request.group(Scoring)
    metric, direction = request.binding.get("metric"), scoring.direction()
    if metric is not None and not isinstance(metric, str):
        raise OptionError("--metric with the name of the score", f"a {type(metric).__name__}", "--metric auc")
    score = metric or name_of(body.result)
    check_direction(score, direction, named=metric is not None)
    own = {spec.name: getattr(scoring, spec.name) for spec in dataclasses.fields(scoring)}
    own |= {spec.name: getattr(technique, spec.name) for spec in dataclasses.fields(technique)}
    taken = inspect.signature(tune).parameters
    # None leaves it to `tune`, as it leaves it to a training where there is no body.
    options = {name: value for name, value in own.items() if name in taken and value is not None}
    for spec in dataclasses.fields(technique):
        if spec.name not in taken and own[spec.name] != spec.default:
            flag = options_of(type(technique))[spec.name].flag
            raise OptionError("options that a body's search has", flag, f"leave {flag} out, or the body")
    limits = {attribute: getattr(running, name) for name, attribute in LIMITS.items()}
    with session.alone(request) as progress:
        return tune(
            BodyObjective(body, session.names),
            **{
                **options,
                "vs": None if options.get("vs") in ("", "none") else options.get("vs"),
                "direction": direction,
                "metric": score,
                "seed": running.seed,
                "limits": {name: value for name, value in limits.items() if value is not None},
                "progress": progress,
            },
        )


def _refuse_others(request: Request) -> None:
    """Refuse what only a bound model gives a meaning."""
    binding = [name for name in request.binding if name not in ("metric", "name")]
    running = [name for name in request.given.get(Running, {}) if name in _OF_RUNS]
    for name, owner in [*((name, Binding) for name in binding), *((name, Running) for name in running)]:
        flag = options_of(owner)[name].flag
        raise OptionError("a body that gives the score, and options of its search", flag, f"leave {flag} out")


def name_of(value: ast.expr) -> str | None:
    """Return the name that a body's last expression has: `val_loss`, `history["val_loss"]`, `result.auc`."""
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.Attribute):
        return value.attr
    if (
        isinstance(value, ast.Subscript)
        and isinstance(value.slice, ast.Constant)
        and isinstance(value.slice.value, str)
    ):
        return value.slice.value
    return None


def check_direction(score: str | None, direction: str | None, *, named: bool) -> None:
    """Refuse a direction that the score's name contradicts: minimizing `auc`, maximizing `val_loss`.

    Args:
        score: Name of the score, None where it has none.
        direction: What the line says; None maximizes, unless the name is that of a known metric.
        named: The line gives the name by --metric; then `nbopt.tune` checks it.

    Raises:
        OptionError: They contradict each other.
    """
    if (
        score is None
        or named
        or (direction is None and score in METRICS)
        or (direction is not None and "," in direction)
    ):
        return
    wrong = _LARGER if direction == "minimize" else _SMALLER
    if wrong.search(score.lower()):
        right = "maximize" if direction == "minimize" else "minimize"
        came = f"--{direction}" if direction else "no direction, which maximizes"
        raise OptionError(
            f"--{right} with a body that ends in {score}", came, f"--{right}, or end the body with another name"
        )
