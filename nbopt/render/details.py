"""What is folded away under the table: every figure of every run, with its conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nbopt.render import figures
from nbopt.render.figures import NOTHING, finite, one_line
from nbopt.render.layers import layers_html
from nbopt.render.markup import markup, safe, typeset
from nbopt.render.search import search_html
from nbopt.render.sensitivity import sensitivity_html
from nbopt.render.sentences import run_parts
from nbopt.render.view import View
from nbopt.runs import Run

_DOT = " \N{MIDDLE DOT} "
LAYERS = 12
"""Layers of each run that the folded details show; `%optimize show NAME` has more."""
SENSITIVE = 10  # layers of a scan, the most sensitive first; %optimize show has more


def details_of(view: View, *, layers: bool = True) -> str:
    """Return a folded list of the runs, each folded in turn, and the environment that they share.

    Args:
        view: The runs.
        layers: With the layers of each run's artifact, the largest ones.
    """
    shared = _shared_environment(view)
    runs = "".join(_run(view, run, shared, layers) for run in view.runs)
    if shared:
        runs += _folded("Environment", [("", safe(_words(shared), 1500))])
    title = "Every figure, run by run" if len(view.runs) > 1 else "Every figure"
    return (
        f'<details style="margin:4px 0 0 0"><summary>{title}</summary>'
        f'<div style="margin:2px 0 0 16px">{runs}</div></details>'
    )


def _run(view: View, run: Run, shared: dict[str, Any], layers: bool) -> str:
    own = {key: value for key, value in run.environment.items() if key not in shared}
    lines = [
        ("", markup(run_parts(view, run))),
        ("quality", typeset(_DOT.join(_quality(run)))),
        ("time", typeset(_DOT.join(_time(run)))),
        ("size", typeset(_DOT.join(_size(run)))),
        ("steps", "<br>".join(_steps(run))),
        ("seeds", typeset(_DOT.join(_seeds(run)))),
        ("work", safe(_DOT.join(_work(run)), 600)),
        ("environment", safe(_words(own), 1500)),
    ]
    table = layers_html(run.audit, rows=LAYERS, pictures=False) if layers else ""
    tried = search_html(run.search, rows=SENSITIVE) + sensitivity_html(run.sensitivity, rows=SENSITIVE)
    return _folded(run.name, lines, table + tried)


def _folded(title: str, lines: Iterable[tuple[str, str]], more: str = "") -> str:
    """Return lines of a name and markup, and more markup, under a title that unfolds them."""
    body = "".join(
        f'<div style="font-size:12px">{f"<b>{name}</b> " if name else ""}{text}</div>' for name, text in lines if text
    )
    inner = f'<div style="margin:0 0 4px 16px">{body}{more}</div>'
    return f"<details><summary>{safe(title, 120)}</summary>{inner}</details>"


def _quality(run: Run) -> Iterable[str]:
    if (quality := figures.quality(run)).value != NOTHING.value:
        unit = "%" if run.bounded else ""
        name = figures.metric_title(one_line(run.metric, 60))
        yield f"{name} {quality.value}{unit} {quality.bounds}".strip()
    if (delta := figures.change(run)).value != NOTHING.value:
        yield f"change {delta.value}{figures.change_unit(run)} {delta.bounds}".strip()
    if (p := finite(run.quality_p)) is not None:
        yield f"p = {p:.2g}"
    if finite(run.agreement) is not None:
        yield f"same prediction as the baseline on {figures.percent(run.agreement)} of rows"
    if finite(run.max_error) is not None:
        yield f"largest output error {figures.figure(run.max_error).value}"
    if run.split:
        yield f"{run.rows:,} rows of {one_line(run.split, 30)}"


def _time(run: Run) -> Iterable[str]:
    latency = figures.latency(run)
    if latency.value != NOTHING.value:
        yield f"median {latency.value} ms {latency.bounds}".strip()
    named = (
        ("p90", run.latency_p90_ms, " ms"),
        ("p99", run.latency_p99_ms, " ms"),
        ("CPU", run.cpu_ms, " ms"),
        ("load", run.load_ms, " ms"),
        ("first inference", run.first_inference_ms, " ms"),
    )
    for name, value, unit in named:
        if finite(value) is not None:
            yield f"{name} {figures.figure(value).value}{unit}"
    if (speed := figures.speedup(run)).value != NOTHING.value:
        yield f"speedup {speed.value}x {speed.bounds}".strip()
    if finite(run.throughput) is not None:
        batch = f" at batch {run.throughput_batch}" if run.throughput_batch else ""
        yield f"throughput {figures.figure(run.throughput).value} rows/s{batch}"
        others = [(size, rate) for size, rate in run.throughputs.items() if size != str(run.throughput_batch)]
        if others:
            yield ", ".join(f"{figures.figure(rate).value} at batch {one_line(size, 8)}" for size, rate in others)
    if (share := finite(run.peak_share)) is not None:
        yield f"runs at {figures.percent(share)} of this machine's peak"
    if (contention := finite(run.contention)) is not None:
        yield f"wall/CPU {contention:.2f}"


def _size(run: Run) -> Iterable[str]:
    named = {
        "file": run.size_bytes,
        "deflated": run.deflated_bytes,
        "peak memory": run.peak_memory_bytes,
    }
    for name, value in named.items():
        if value is not None:
            yield f"{name} {figures.in_bytes(value)}"
    if run.params is not None:
        yield f"{run.params:,} parameters"
    if run.nonzero_params is not None and run.nonzero_params != run.params:
        yield f"{run.nonzero_params:,} not zero"


def _steps(run: Run) -> Iterable[str]:
    """Yield a line of markup for each step of a pipeline: what it gave on each axis."""
    for step in run.steps if len(run.steps) > 1 else ():
        yield f"{safe(str(step['words']), 100)}: {typeset(figures.step_gains(run, step))}"


def _seeds(run: Run) -> Iterable[str]:
    """Yield how far each figure varies with the seed."""
    if not run.seeds:
        return
    yield ", ".join(map(str, run.seeds))
    scale = figures.POINTS if run.bounded else 1.0
    for name, factor, unit in (("quality", scale, ""), ("speedup", 1.0, "x"), ("latency_ms", 1.0, " ms")):
        values = [value * factor for value in run.spread.get(name, ()) if finite(value) is not None]
        if values:
            title = figures.metric_title(one_line(run.metric, 60)) if name == "quality" else name.removesuffix("_ms")
            least, most = (figures.figure(end(values), digits=3).value for end in (min, max))
            yield f"{title} {least} to {most}{unit}"


def _work(run: Run) -> Iterable[str]:
    if not run.is_baseline:
        yield one_line(run.recipe, 200)
    yield f"seed {run.seed}"
    spent = (("training", run.train_seconds), ("search", run.search_seconds), ("measuring", run.measure_seconds))
    for name, value in spent:
        if finite(value):
            yield f"{name} {figures.figure(value).value} s"
    if run.epochs:
        yield f"{run.epochs} epochs"
    if run.cost_usd is not None:
        yield f"{run.cost_usd:.2f} USD"
    if run.artifact:
        yield one_line(run.artifact, 120)
    if run.created:
        yield one_line(run.created[:19].replace("T", " "), 30)


def _shared_environment(view: View) -> dict[str, Any]:
    """Return the conditions that all measured runs have in common."""
    environments = [run.environment for run in view.measured if run.environment]
    if not environments:
        return {}
    first = environments[0]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in environments)}


def _words(environment: dict[str, Any]) -> str:
    return _DOT.join(f"{one_line(str(key), 40)}: {_value(value)}" for key, value in environment.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return one_line(", ".join(f"{name} {item}" for name, item in value.items()), 500)
    if isinstance(value, list | tuple):
        return one_line(", ".join(map(str, value)), 200)
    return one_line(str(value), 200)
