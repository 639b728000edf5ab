"""The plain-text table, as a person reads it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hypothesis import given, settings

from nbopt import render
from nbopt.comparison import Comparison
from nbopt.render.plain import columns
from tests.render.sample_runs import (
    BASELINE,
    ENVIRONMENT,
    EVERYTHING,
    HOSTILE,
    INT8,
    REFUSED,
    any_comparison,
    run_of,
    with_metric,
    without_labels,
)

GOLDEN = Path(__file__).with_name("comparison.txt")

NARROW = """\
  accuracy %  change pt          size     latency   speedup
baseline/torch
  91.3        -                  1.35 MB  0.41 ms   1
quantize/openvino int8 static: faster, smaller, same accuracy [1]
  91.2        -0.1 [-0.3, +0.1]  0.35 MB  0.131 ms  3.1 [3.0, 3.3]
quantize/litert#2 int8 static: failed  operator X is not supported: export float

[1] calibrated on 512 rows of train"""


def test_the_table_as_a_person_reads_it() -> None:
    assert render.text(EVERYTHING) + "\n" == GOLDEN.read_text(encoding="utf-8")


def test_a_narrow_terminal_keeps_names_and_figures() -> None:
    assert render.text(Comparison([BASELINE, INT8, REFUSED]), width=80).endswith(NARROW)


def test_the_table_fits_its_width() -> None:
    for width in (80, 100, 120, 132, 140, 200):
        assert max(map(columns, render.text(EVERYTHING, width).splitlines())) <= width


def test_long_labels_are_shortened_and_names_are_not() -> None:
    long = dataclasses.replace(INT8, label="quantize int8 static " + "with many words " * 10)
    text = render.text(Comparison([BASELINE, long]))
    assert "quantize/openvino" in text
    assert ".." in text
    assert "3.1 [3.0, 3.3]" in text


def test_units_of_a_metric_without_bounds() -> None:
    text = render.text(Comparison([with_metric(BASELINE), with_metric(INT8)]))
    assert "RMSE the same +0.004 [-0.004, +0.012]" in text
    assert "change pt" not in text
    assert " pt " not in text


def test_without_labels_agreement_is_shown() -> None:
    text = render.text(Comparison([without_labels(BASELINE), without_labels(INT8)]))
    assert "agreement" in text
    assert "98.71%" in text
    assert "no labels, 10,000 rows" in text


def test_other_conditions_are_said() -> None:
    other = dataclasses.replace(INT8, environment={**ENVIRONMENT, "threads": 1})
    text = render.text(Comparison([BASELINE, other]))
    assert "Measured under different conditions: threads (1, 2). Compare speedups, not milliseconds." in text


def test_several_workloads_become_several_tables() -> None:
    text = render.text(Comparison([BASELINE, dataclasses.replace(INT8, workload="other", workload_key="k2")]))
    assert text.count("verdict") == 2


def test_valid_is_named_where_there_is_no_test_split() -> None:
    text = render.text(Comparison([dataclasses.replace(BASELINE, split="valid")]))
    assert "accuracy on valid (there is no test split), 10,000 rows" in text


def test_no_runs() -> None:
    assert render.text(Comparison([])) == "No runs yet."


def test_wide_letters_keep_columns_aligned() -> None:
    wide = dataclasses.replace(INT8, name="名前/openvino", label="名前")
    lines = render.text(Comparison([BASELINE, wide])).splitlines()
    first, second = (next(line for line in lines if line.startswith(start)) for start in ("baseline/", "名前/"))
    assert columns(first.partition(" MB")[0]) == columns(second.partition(" MB")[0])


def test_sixty_runs() -> None:
    runs = [run_of(f"quantize/openvino#{i}", f"quantize int8 {i}", delta=(0, 0, 0)) for i in range(60)]
    assert len(render.text(Comparison([BASELINE, *runs])).splitlines()) < 140


def test_a_verdict_that_another_version_wrote_is_printable() -> None:
    text = render.text(Comparison([BASELINE, dataclasses.replace(INT8, verdicts={"quality": HOSTILE})]))
    assert all(line.isprintable() for line in text.split("\n"))


@settings(max_examples=60)
@given(any_comparison)
def test_any_runs_give_printable_text(comparison: Comparison) -> None:
    for width in (20, 140):
        text = render.text(comparison, width)
        assert all(line.isprintable() for line in text.split("\n"))
        assert "nan" not in text.replace(HOSTILE, "").split()
