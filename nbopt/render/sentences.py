"""Sentences made from figures: what a reader sees before the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nbopt.bounds import loss_bound, within
from nbopt.measurement.statistics import EQUIVALENCE, QUIET
from nbopt.render import figures
from nbopt.render.conditions import conditions_of
from nbopt.render.figures import NOTHING, finite, one_line
from nbopt.render.view import View, label_of, runtime_title
from nbopt.runs import Run

Kind = Literal["words", "aside", "name"]


@dataclass(frozen=True)
class Part:
    """Hold a piece of a sentence.

    Args:
        text: Plain text in ASCII signs, save for what a user wrote.
        kind: "words"; "aside" for what is set smaller, such as an interval; "name" for what a user wrote,
            which no renderer may typeset.
    """

    text: str
    kind: Kind = "words"


Sentence = tuple[Part, ...]


@dataclass(frozen=True)
class Headline:
    """Hold what stands above a table.

    Args:
        run: The run that it is about; None where nothing was measured.
        strong: The result.
        second: How it came about, and what else there is; may be empty.
        conditions: Under which conditions all of it was measured.
    """

    run: Run | None
    strong: Sentence
    second: Sentence
    conditions: Sentence


COARSEST_SPLIT = 0.1
"""Share of a speedup by which its bounds may lie apart from it for its parts to be told."""


def plain(sentence: Iterable[Part]) -> str:
    """Return a sentence as plain text."""
    return "".join(part.text for part in sentence)


def headline(view: View) -> Headline:
    """Return what stands above the table of one workload."""
    best, conditions = view.best, tuple(_conditions(view))
    if best is None:
        return Headline(None, _nothing_measured(view), (), conditions)
    if best is view.baseline:
        if len(view.runs) == 1:
            return Headline(best, tuple(_baseline_figures(view, best)), (), conditions)
        strong = (Part("Nothing beats the baseline: keep it"),)
        return Headline(best, strong, (*_why_kept(view), *_reserve(view)), conditions)
    result = tuple(_joined(_phrases(view, best)))
    return Headline(best, result, (*_second(view, best), *_reserve(view)), conditions)


def _reserve(view: View) -> Sentence:
    """Return what must be said of a choice among rows that were not measured alike."""
    if not view.differing:
        return ()
    apart = ", ".join(words.partition(" (")[0] for words in view.differing)
    return Part(" The rows were measured under different conditions ("), Part(apart, "name"), Part("): not a ranking.")


def run_sentence(run: Run, baseline: Run | None = None) -> str:
    """Return one plain sentence for one run from its figures.

    Args:
        run: The run.
        baseline: The run that sizes are compared with; without it the sentence gives the size alone.
    """
    view = View((run,) if baseline is None or baseline is run else (baseline, run))
    return plain(run_parts(view, run))


def run_parts(view: View, run: Run) -> Sentence:
    """Return `run_sentence` in parts, for a run among others."""
    who = (Part(label_of(run), "name"), Part(" on "), Part(runtime_title(run.runtime), "name"))
    if run.failed:
        reason = one_line(run.reason).rstrip(".") or "no reason was recorded"
        return *who, Part(" failed: "), Part(reason, "name"), Part(".")
    if run is view.baseline:
        return *who, Part(": "), *_baseline_figures(view, run), Part(".")
    phrases = _phrases(view, run, all_axes=True)
    if view.baseline is None and run.size_bytes is not None:
        phrases.append((Part(figures.in_bytes(run.size_bytes)),))
    parts = [*who, Part(": "), *_joined(phrases)]
    if split := _split(run):
        parts += [Part("; "), *split]
    if reason := one_line(run.reason).rstrip("."):
        parts += [Part("; "), Part(reason, "name")]
    return *parts, Part(".")


def _phrases(view: View, run: Run, *, all_axes: bool = False) -> list[Sentence]:
    """Return a phrase for each axis, gains first."""
    speed, size = _speed(view, run), _size(view, run)
    order: list[Sentence]
    gained = view.verdict(run, "latency") == "better"
    shrunk = view.size_verdict(run) == "better"
    order = [size, speed] if shrunk and not gained and not all_axes else [speed, size]
    if not all_axes and run.is_baseline:
        order = [speed]
    phrases = [phrase for phrase in order if phrase]
    memory = view.memory_ratio(run)
    if memory is not None and (all_axes or not (gained or shrunk)):
        if view.verdict(run, "memory") == "better" and memory > 1:
            phrases.append((Part(f"{figures.times(memory)}x less memory"),))
        elif view.verdict(run, "memory") == "worse" and memory < 1:
            phrases.append((Part(f"{figures.times(1 / memory)}x more memory"),))
    phrases.append(_quality(view, run))
    return phrases


def _speed(view: View, run: Run) -> Sentence:
    verdict, ratio = view.verdict(run, "latency"), figures.speedup(run)
    if ratio.value == NOTHING.value:
        return () if run.is_baseline else (Part("speed not measured"),)
    if verdict == "better":
        return (Part(f"{ratio.value}x faster"), *_aside(ratio.bounds))
    if verdict == "worse":
        slower = figures.slowdown(run)
        return Part(f"{slower.value}x slower"), *_aside(slower.bounds)
    disturbed = verdict == "inconclusive" and (finite(run.contention) or 1.0) > QUIET
    busy = ", machine busy" if verdict == "busy" or disturbed else ""
    word = "same speed" if verdict == "same" else "speed inconclusive"
    known = () if ratio is figures.UNKNOWN else _aside(f"{ratio.value}x {ratio.bounds}".strip())
    return Part(word), *known, *((Part(busy),) if busy else ())


def _size(view: View, run: Run) -> Sentence:
    smaller = view.size_ratio(run)
    if smaller is None:
        return ()
    verdict = view.size_verdict(run)
    return (Part(figures.shrinkage(smaller) if verdict in {"better", "worse"} else "same size"),)


def _quality(view: View, run: Run) -> Sentence:
    verdict, delta = view.verdict(run, "quality"), figures.change(run)
    if not run.metric:
        if finite(run.agreement) is not None:
            return (Part(f"the same prediction on {figures.percent(run.agreement)} of rows"),)
        return (Part("quality not measured"),)
    name = Part(figures.metric_title(one_line(run.metric)), "name")
    if verdict == "identical":
        return name, Part(" identical")
    if delta.value == NOTHING.value:
        return name, Part(" not a number" if run.collapsed else " not measured")
    word = {"same": "the same", "": ""}.get(verdict, one_line(verdict))
    aside = f"{delta.value}{figures.change_unit(run)} {delta.bounds}".strip()
    return name, Part(f" {word}".rstrip()), *_aside(aside)


def _aside(text: str) -> Sentence:
    return (Part(f" {text}", "aside"),) if text else ()


def _joined(phrases: Iterable[Sentence]) -> Iterable[Part]:
    """Yield phrases with commas between them."""
    for index, phrase in enumerate(phrases):
        if index:
            yield Part(", ")
        yield from phrase


def _baseline_figures(view: View, run: Run) -> Iterable[Part]:
    phrases: list[Sentence] = []
    quality, latency = figures.quality(run), figures.latency(run)
    if quality.value != NOTHING.value:
        name = Part(figures.metric_title(one_line(run.metric)), "name")
        phrases.append((name, Part(f" {quality.value}{'%' if run.bounded else ''}"), *_aside(quality.bounds)))
    if latency.value != NOTHING.value:
        phrases.append((Part(f"{latency.value} ms"), *_aside(latency.bounds)))
    if run.size_bytes is not None:
        phrases.append((Part(view.unit.text(run.size_bytes)),))
    return _joined(phrases) if phrases else (Part("not measured"),)


def _second(view: View, best: Run) -> Iterable[Part]:
    if best.is_baseline:
        yield Part("The same model, run by ")
        yield Part(runtime_title(best.runtime), "name")
        yield Part(".")
    else:
        yield Part(label_of(best), "name")
        yield Part(" on ")
        yield Part(runtime_title(best.runtime), "name")
        yield Part(".")
        if split := _split(best):
            yield Part(" ")
            first, *rest = split
            yield Part(first.text[0].upper() + first.text[1:], first.kind)
            yield from rest
            yield Part(".")
    yield from _others(view, best)


def _split(run: Run) -> Sentence:
    """Return what runtime and technique each gave, without a full stop.

    Empty where one gave all, and where the whole is so uncertain that its parts would not multiply up to it.
    """
    whole, runtime, own = (finite(x) for x in (run.speedup, run.speedup_runtime, run.speedup_technique))
    if run.is_baseline or whole is None or not runtime or not own or abs(runtime - 1) <= EQUIVALENCE:
        return ()
    low, high = finite(run.speedup_low), finite(run.speedup_high)
    if low is None or high is None or high - low > 2 * COARSEST_SPLIT * whole:
        return ()
    first = figures.share_of_speedup(run, runtime)
    second = figures.share_of_speedup(run, own)
    label = Part(label_of(run), "name")
    if len(run.steps) > 1:
        return tuple(_steps(run, runtime))
    if own < 1 / (1 + EQUIVALENCE):
        return Part(f"the runtime alone gives {first}x, and "), label, Part(f" makes it {second}x of that")
    total = figures.speedup(run).value
    return Part(f"of the {total}x, the runtime gives {first}x and "), label, Part(f" {second}x")


def _steps(run: Run, runtime: float) -> Iterable[Part]:
    """Yield what the runtime and each step of a pipeline gave of a speedup."""
    yield Part(f"of the {figures.speedup(run).value}x, the runtime gives {figures.share_of_speedup(run, runtime)}x")
    for index, step in enumerate(run.steps, 1):
        yield Part(" and " if index == len(run.steps) else ", ")
        yield Part(one_line(str(step["words"])), "name")
        yield Part(f" {figures.share_of_speedup(run, step['speedup'])}x")


def _others(view: View, best: Run) -> Iterable[Part]:
    faster = view.faster()
    if len(faster) == 1:
        (run,) = faster
        delta = figures.change(run)
        yield Part(" One variant is faster still: ")
        yield Part(label_of(run), "name")
        yield Part(" on ")
        yield Part(runtime_title(run.runtime), "name")
        yield Part(f", {figures.speedup(run).value}x")
        if delta.value != NOTHING.value:
            yield Part(", ")
            yield Part(view.metric, "name")
            yield from _aside(f"{delta.value}{figures.change_unit(run)} {delta.bounds}".strip())
        yield Part(".")
    elif faster:
        unknown = sum(loss_bound(run) is None for run in faster)
        lost = len(faster) - unknown
        if lost:
            verb = "variant is faster still and may" if lost == 1 else "variants are faster still and may"
            yield Part(f" {lost} {verb} lose more than {_limit(view, best)}.")
        if unknown:
            verb = "is" if unknown == 1 else "are"
            yield Part(f" {unknown} of unmeasured quality {verb} faster still.")


def _limit(view: View, run: Run) -> str:
    share = figures.write_short(figures.POINTS * view.max_drop)
    return f"{share} pt" if run.bounded else f"{share}% of the baseline's value"


def _why_kept(view: View) -> Iterable[Part]:
    """Yield how the other rows fell short, each counted once."""
    others = [run for run in view.runs if run is not view.baseline]
    counts: dict[tuple[str, str], int] = {}
    for run in others:
        counts[_shortfall(view, run)] = counts.get(_shortfall(view, run), 0) + 1
    told = ", ".join(f"{count} {one if count == 1 else many}" for (one, many), count in counts.items())
    yield Part(f"Of {len(others)} other {'row' if len(others) == 1 else 'rows'} {told}.")


def _shortfall(view: View, run: Run) -> tuple[str, str]:
    """Return why a run was not taken, for one run and for many."""
    if run.failed:
        return "failed", "failed"
    if run.collapsed:
        return "collapsed", "collapsed"
    if loss_bound(run) is None:
        return "has no measured quality", "have no measured quality"
    if not within(run, view.max_drop):
        return (f"may lose more than {_limit(view, run)}",) * 2
    if view.verdict(run, "latency") in {"inconclusive", "busy"}:
        return "is inconclusive", "are inconclusive"
    if view.verdict(run, "latency") == "better" and run.verdicts.get("technique") in {"same", "worse"}:
        return "is faster by the runtime alone", "are faster by the runtime alone"
    return "is not faster", "are not faster"


def _nothing_measured(view: View) -> Sentence:
    failed = sum(run.failed for run in view.runs)
    if failed == len(view.runs):
        return (Part("The only run failed" if failed == 1 else f"All {failed} runs failed"),)
    return (Part("Nothing was measured against a baseline"),)


def _conditions(view: View) -> Iterable[Part]:
    """Yield the line of conditions."""
    for index, piece in enumerate(conditions_of(view)):
        if index:
            yield Part(" \N{MIDDLE DOT} ")
        yield from (Part(text, "name" if is_name else "words") for text, is_name in piece)
