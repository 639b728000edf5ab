"""Sentences say what the rows say."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbopt.comparison import Comparison
from nbopt.render import run_sentence
from nbopt.render.sentences import Headline, headline, plain
from nbopt.render.view import View, notes_of
from nbopt.runs import Run
from tests.render.sample_runs import (
    BASELINE,
    ENVIRONMENT,
    EVERYTHING,
    INT8,
    MASKED,
    NOTHING_WINS,
    ON_ORT,
    REFUSED,
    SLOWER,
    STUDENT,
    any_run,
    run_of,
    without_labels,
)


def top(*runs: Run) -> Headline:
    return headline(View(Comparison(runs).runs))


def test_the_headline_tells_of_the_best_run() -> None:
    told = headline(View(EVERYTHING.runs))
    assert told.run is not None
    assert told.run.name == EVERYTHING.best(max_drop=0.01).name == "quantize/openvino"
    assert plain(told.strong) == "3.1x faster [3.0, 3.3], 3.9x smaller, accuracy the same -0.1 pt [-0.3, +0.1]"


def test_a_runtime_alone_can_win() -> None:
    told = top(BASELINE, ON_ORT)
    assert plain(told.strong) == "2.00x faster [1.91, 2.10], accuracy identical"
    assert plain(told.second) == "The same model, run by ONNX Runtime."


def test_a_technique_that_costs_speed_is_not_credited_with_the_runtimes() -> None:
    run = dataclasses.replace(INT8, speedup_runtime=4.0, speedup_technique=0.78)
    assert "The runtime alone gives 4.0x, and quantize int8 static makes it 0.8x of that." in plain(
        top(BASELINE, run).second
    )


def test_when_nothing_wins_the_baseline_is_kept() -> None:
    told = headline(View(NOTHING_WINS.runs))
    assert told.run is NOTHING_WINS.runs[0]
    assert plain(told.strong) == "Nothing beats the baseline: keep it"
    assert plain(told.second) == "Of 3 other rows 1 is not faster, 1 may lose more than 1 pt, 1 failed."


def test_inconclusive_is_no_win() -> None:
    run = run_of("quantize/openvino", delta=(0, 0, 0), speedup=(1.3, 0.8, 2.0), contention=2.4)
    told = top(BASELINE, run)
    assert told.run is not None
    assert told.run.is_baseline
    assert plain(told.second) == "Of 1 other row 1 is inconclusive."
    assert "machine busy (wall/CPU 2.40)" in plain(told.conditions)
    assert "speed inconclusive 1.3x [0.8, 2.0], machine busy" in run_sentence(run, BASELINE)


def test_a_smaller_file_at_the_same_speed_wins_by_its_size() -> None:
    run = run_of("quantize/torch", delta=(0, 0, 0), speedup=(1.0, 0.99, 1.01), size_bytes=340_000)
    assert plain(top(BASELINE, run).strong) == "4.0x smaller, same speed 1.00x [0.99, 1.01], accuracy identical"


def test_baseline_only() -> None:
    assert plain(top(BASELINE).strong) == "accuracy 91.3% [90.8, 91.8], 0.41 ms [0.40, 0.42], 1.35 MB"


def test_all_failed() -> None:
    assert plain(top(REFUSED).strong) == "The only run failed"
    assert plain(top(REFUSED, dataclasses.replace(REFUSED, id="b")).strong) == "All 2 runs failed"


def test_without_labels_nothing_is_claimed_about_quality() -> None:
    told = top(*(without_labels(run) for run in (BASELINE, INT8)))
    assert told.run is not None
    assert told.run.is_baseline
    assert plain(told.second) == "Of 1 other row 1 has no measured quality."
    assert "the same prediction on 98.71% of rows" in run_sentence(without_labels(INT8), BASELINE)


@pytest.mark.parametrize("key", list(ENVIRONMENT))
def test_any_condition_may_be_missing(key: str) -> None:
    rest = {name: value for name, value in ENVIRONMENT.items() if name != key}
    assert plain(top(dataclasses.replace(BASELINE, environment=rest)).conditions).startswith("fashion-cnn (torch)")


def test_shared_rows_are_counted() -> None:
    for count, words in ((1, "1 row shared"), (1200, "1,200 rows shared"), (0, "no shared rows")):
        run = dataclasses.replace(BASELINE, environment={**ENVIRONMENT, "shared_rows": count})
        assert words in plain(top(run).conditions)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (BASELINE, "baseline on PyTorch eager: accuracy 91.3% [90.8, 91.8], 0.41 ms [0.40, 0.42], 1.35 MB."),
        (
            INT8,
            (
                "quantize int8 static on OpenVINO: 3.1x faster [3.0, 3.3], 3.9x smaller, accuracy the same -0.1 pt "
                "[-0.3, +0.1]; of the 3.1x, the runtime gives 1.9x and quantize int8 static 1.6x."
            ),
        ),
        (
            MASKED,
            (
                "prune 0.5 unstructured on OpenVINO: 1.90x faster [1.85, 1.96], same size, accuracy the same -0.1 pt "
                "[-0.2, +0.1]; of the 1.90x, the runtime gives 1.90x and prune 0.5 unstructured 1.00x; zeros do not "
                "help dense kernels."
            ),
        ),
        (
            SLOWER,
            (
                "quantize int8 dynamic on LiteRT: 5.9x slower [5.7, 6.1], 3.9x smaller, accuracy the same -0.1 pt "
                "[-0.2, +0.1]; the runtime alone gives 1.20x, and quantize int8 dynamic makes it 0.140x of that."
            ),
        ),
        (REFUSED, "quantize int8 static on LiteRT failed: operator X is not supported: export float."),
    ],
    ids=lambda value: value.name if isinstance(value, Run) else "",
)
def test_one_sentence_for_one_run(run: Run, sentence: str) -> None:
    assert run_sentence(run, BASELINE) == sentence


def test_a_run_without_its_baseline_gives_its_size() -> None:
    assert ", 346 kB" in run_sentence(INT8) or ", 0.35 MB" in run_sentence(INT8)


positive = st.floats(0.01, 100)


@settings(max_examples=200)
@given(ratio=positive, spread=st.floats(0.001, 0.3), size=st.integers(1000, 10**9), delta=st.floats(-0.5, 0.5))
def test_figures_of_a_sentence_are_the_runs(ratio: float, spread: float, size: int, delta: float) -> None:
    low, high = ratio * (1 - spread), ratio * (1 + spread)
    run = run_of(
        "quantize/openvino",
        "Q",
        quality=0.6,
        delta=(delta, delta - 0.013, delta + 0.013),
        speedup=(ratio, low, high),
        size_bytes=size,
    )
    said = run_sentence(run, BASELINE)
    speed = re.search(r"([\d.,]+)x (faster|slower) \[([\d.,]+), ([\d.,]+)\]", said)
    if speed:
        number, least, most = (float(speed[i].replace(",", "")) for i in (1, 3, 4))
        expected = ratio if speed[2] == "faster" else 1 / ratio
        assert number == pytest.approx(expected, abs=(most - least) / 2 + 1e-9, rel=spread)
        assert (low > 1) if speed[2] == "faster" else (high < 1)
    else:
        assert "same speed" in said or "speed inconclusive" in said
        assert low <= 1.021
        assert high >= 1 / 1.021
    resized = re.search(r"([\d.,e+]+)x (smaller|larger)", said)
    if resized:
        expected = 1_350_000 / size if resized[2] == "smaller" else size / 1_350_000
        assert float(resized[1].replace(",", "")) == pytest.approx(expected, rel=0.06)
        assert expected > 1
    points = re.search(r"accuracy (?:[a-z ]+) ([+-]?\d+) pt \[([+-]?\d+), ([+-]?\d+)\]", said)
    assert points, said
    assert int(points[1]) == pytest.approx(100 * delta, abs=0.51)
    word = "better" if delta > 0.013 else "worse" if delta < -0.013 else ""
    assert word in said


STUDENTS = st.lists(st.sampled_from([INT8, ON_ORT, MASKED, SLOWER, STUDENT, REFUSED]), unique_by=lambda run: run.name)


@given(STUDENTS)
def test_the_headline_never_tells_of_a_run_that_may_lose_more_than_a_point(runs: list[Run]) -> None:
    told = top(BASELINE, *runs)
    assert told.run is not None
    assert told.run.name not in {STUDENT.name, REFUSED.name, SLOWER.name}


@given(any_run, any_run)
def test_any_run_gives_one_line(run: Run, baseline: Run) -> None:
    assert run_sentence(run, baseline).isprintable()
    assert run_sentence(run).isprintable()


def with_shared(**pairs: tuple[int, int]) -> Run:
    shared = {
        pair.replace("_", "-"): {"rows": rows, "of": of, "read": 60_000, "whole": True}
        for pair, (rows, of) in pairs.items()
    }
    return dataclasses.replace(BASELINE, environment={**ENVIRONMENT, "shared": shared})


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (with_shared(train_test=(0, 10_000), valid_test=(0, 10_000)), "no shared rows"),
        (with_shared(train_test=(3, 10_000)), "3 of 10,000 rows of test stand in train too"),
        (
            with_shared(train_test=(2_000, 10_000)),
            "2,000 of 10,000 rows of test stand in train too, so quality is optimi",
        ),
        (with_shared(train_valid=(2_000, 10_000)), ""),
        (with_shared(train_test=(3, 100), valid_test=(4, 100)), "stand in train too, so quality is optimistic; 4 of"),
    ],
)
def test_what_splits_share_is_among_the_conditions(run: Run, words: str) -> None:
    conditions = plain(top(run).conditions)
    assert words in conditions
    assert ("stand in" in conditions) == ("stand in" in words)


def test_shared_rows_of_a_part_are_said_to_be_of_a_part() -> None:
    body = {"rows": 0, "of": 100, "read": 200_000, "whole": False}
    run = dataclasses.replace(BASELINE, environment={**ENVIRONMENT, "shared": {"train-test": body}})
    assert "no shared rows in the 200,000 read" in plain(top(run).conditions)
    run = dataclasses.replace(run, environment={"shared": {"train-test": {**body, "rows": 2}}})
    assert "at least 2 of 100 rows of test stand in train too" in plain(top(run).conditions)


def test_each_affected_row_has_a_footnote_on_what_is_shared() -> None:
    measured = with_shared(train_test=(3, 10_000), train_valid=(5, 400), valid_test=(0, 10_000))
    (note,) = notes_of(measured)
    assert note.startswith("3 of 10,000 distinct rows of test (0.03%) stand in train too")
    trained = dataclasses.replace(measured, epochs=2)
    assert [text.split(":")[0] for text in notes_of(trained)] == [
        "3 of 10,000 distinct rows of test (0.03%) stand in train too",
        "5 of 400 distinct rows of valid (1.2%) stand in train too",
    ]
    assert notes_of(dataclasses.replace(REFUSED, environment=measured.environment)) == []
    assert notes_of(with_shared(train_test=(0, 10_000))) == []


def test_a_headline_over_rows_of_different_conditions_says_so() -> None:
    slower = {**ENVIRONMENT, "governor": "powersave"}
    runs = [BASELINE, dataclasses.replace(INT8, environment={**ENVIRONMENT, "governor": "performance"})]
    assert "different conditions" not in plain(top(*runs).second)
    runs.append(dataclasses.replace(MASKED, environment=slower))
    assert plain(top(*runs).second).endswith("measured under different conditions (governor): not a ranking.")
    kept = [BASELINE, dataclasses.replace(SLOWER, environment={**ENVIRONMENT, "threads": 7})]
    assert plain(top(*kept).second).endswith("measured under different conditions (threads): not a ranking.")


def test_an_uncertain_speedup_is_not_taken_apart() -> None:
    wide = dataclasses.replace(INT8, speedup=6.0, speedup_low=4.0, speedup_high=9.0)
    assert "the runtime gives" not in plain(top(BASELINE, wide).second)
    assert "the runtime gives" in plain(
        top(BASELINE, dataclasses.replace(wide, speedup_low=5.5, speedup_high=6.5)).second
    )


@pytest.mark.parametrize(("high", "still"), [(3.3, True), (None, False), (float("inf"), False)])
def test_nothing_is_faster_still_than_what_the_machine_left_open(high: float | None, still: bool) -> None:
    best = dataclasses.replace(INT8, speedup_high=high)
    lossy = run_of("prune/openvino", speedup=(9.0, 8.0, 10.0), delta=(-0.05, -0.06, -0.04))
    view = View(Comparison([BASELINE, best, lossy]).runs)
    assert view.best is not None
    assert view.best.id == best.id
    assert bool(view.faster()) == still


def test_what_may_be_lost_is_what_was_asked_for() -> None:
    run = run_of(
        "prune/onnxruntime", delta=(-0.015, -0.02, -0.01), speedup=(4, 3.9, 4.1), size_bytes=300_000,
        verdicts={"latency": "better", "size": "better", "quality": "slightly worse"},
    )  # fmt: skip
    assert "may lose more than 1 pt" in plain(top(BASELINE, run).second)
    lenient = dataclasses.replace(run, max_drop=0.03)
    assert top(BASELINE, lenient).run is not None
    assert plain(top(BASELINE, lenient).strong).startswith("4.0x faster")
    strict = dataclasses.replace(INT8, max_drop=0.002)
    assert "1 may lose more than 0.2 pt" in plain(top(BASELINE, strict).second)
    # Of runs that were asked differently all are judged by the strictest; a baseline was not asked.
    assert View((BASELINE, lenient, INT8)).max_drop == 0.01
    assert View((dataclasses.replace(BASELINE, max_drop=0.001), lenient)).max_drop == 0.03


def test_a_runtime_wins_where_the_fastest_variant_owes_it_all_its_speed() -> None:
    same = run_of(
        "schedule/onnxruntime", delta=(0.001, -0.001, 0.003), speedup=(2.3, 2.2, 2.4), factors=(2.28, 1.01),
        size_bytes=1_330_000,
        verdicts={"latency": "better", "technique": "same", "size": "same", "quality": "same", "memory": "same"},
    )  # fmt: skip
    told = top(BASELINE, ON_ORT, same)
    assert told.run is not None
    assert told.run.name == "baseline/onnxruntime"
    assert plain(told.strong).startswith("2.00x faster")
    assert plain(top(BASELINE, same).second) == "Of 1 other row 1 is faster by the runtime alone."
