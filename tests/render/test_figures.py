"""Figures never show more digits than their interval supports, and never fail on what is not finite."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nbopt.measurement.statistics import decimals
from nbopt.render import figures
from tests.render.sample_runs import BASELINE, INT8, SLOWER, run_of

numbers = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-9)


def shown(text: str) -> tuple[float, int]:
    """Return the number that a text shows, and its decimals."""
    plain = text.replace(",", "")
    mantissa, _, exponent = plain.partition("e")
    return float(plain), len(mantissa.partition(".")[2]) - int(exponent or 0)


@given(value=numbers, below=st.floats(1e-6, 1e6), above=st.floats(1e-6, 1e6))
def test_no_more_digits_than_the_interval_supports(value: float, below: float, above: float) -> None:
    # Where an interval is no wider than floats are dense, its half-width is a rounding error, not a figure.
    assume(min(below, above) > 1e-9 * abs(value))
    low, high = value - below, value + above
    written = figures.figure(value, low, high)
    supported = decimals(value, (high - low) / 2)
    number, places = shown(written.value)
    assert places <= max(0, supported)
    assert abs(number - value) <= 0.5000001 * 10.0**-supported + 1e-9 * abs(value)
    for bound, text in zip((low, high), written.bounds.strip("[]").split(", "), strict=True):
        assert abs(shown(text)[0] - bound) <= 0.5000001 * 10.0**-supported + 1e-9 * abs(bound)


@given(st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats()))
def test_nothing_that_is_not_finite_is_written(value: float | None, low: float | None, high: float | None) -> None:
    written = figures.figure(value, low, high, sign=True, visible=True)
    assert "nan" not in str(written).lower()
    assert "inf" not in str(written).lower()
    assert figures.Unit("MB", 1e6).number(value)
    assert figures.in_bytes(value)
    assert figures.percent(value)


def test_figures_of_a_run() -> None:
    assert str(figures.speedup(INT8)) == "3.1 [3.0, 3.3]"
    assert str(figures.change(INT8)) == "-0.1 [-0.3, +0.1]"
    assert str(figures.quality(INT8)) == "91.2 [90.7, 91.8]"
    assert str(figures.latency(BASELINE)) == "0.41 [0.40, 0.42]"
    assert str(figures.slowdown(SLOWER)) == "5.9 [5.7, 6.1]"
    assert figures.change_unit(INT8) == " pt"


def test_a_factor_has_no_more_digits_than_the_whole() -> None:
    assert figures.share_of_speedup(INT8, INT8.speedup_runtime) == "1.9"
    assert figures.share_of_speedup(INT8, INT8.speedup_technique) == "1.6"
    assert figures.share_of_speedup(SLOWER, 0.14) == "0.140"
    assert figures.share_of_speedup(INT8, None) == "-"


def test_a_ratio_is_never_zero_however_wide_its_interval() -> None:
    run = run_of("quantize/openvino", speedup=(3.1, 0.1, 90.0))
    assert figures.speedup(run).value == "3"


@pytest.mark.parametrize("high", [None, math.inf])
def test_a_speedup_that_the_machine_left_open_has_no_digit_and_no_share(high: float | None) -> None:
    run = dataclasses.replace(INT8, speedup=73.2, speedup_low=0.0, speedup_high=high)
    assert str(figures.speedup(run)) == str(figures.slowdown(run)) == "? [0, ∞]"
    assert figures.share_of_speedup(run, 1.9) == "-"
    assert str(figures.speedup(dataclasses.replace(run, speedup=3.14, speedup_low=2.2))) == "3.1 [2.2, ∞]"


def test_a_loss_that_rounds_to_nothing_has_no_sign() -> None:
    assert figures.figure(-0.0001, -0.004, 0.004, sign=True).value == "0.000"


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100%"), (0.99999, "99.99%"), (0.9871, "98.71%"), (0.0, "0%"), (math.nan, "-")]
)
def test_a_share_below_one_is_not_rounded_to_100(share: float, text: str) -> None:
    assert figures.percent(share) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(1.0375, "1.04"), (3.86, "3.9"), (45.2, "45"), (1234.5, "1234"), (12345678, "1.2345678e+07")]
)
def test_ratios_of_exact_figures(ratio: float, text: str) -> None:
    assert figures.times(ratio) == text


@pytest.mark.parametrize(
    ("sizes", "texts"),
    [
        ((1_350_000, 346_000, 30_000), ("1.35 MB", "0.35 MB", "0.030 MB")),
        ((12_000_000_000, 45_000_000), ("12.0 GB", "0.045 GB")),
        ((52_300, 900), ("52.3 kB", "0.90 kB")),
        ((120, 0), ("120 B", "0")),
    ],
)
def test_one_unit_for_a_table(sizes: tuple[int, ...], texts: tuple[str, ...]) -> None:
    unit = figures.unit_of(sizes)
    assert tuple(unit.text(size).removesuffix(" B") if not size else unit.text(size) for size in sizes) == texts


def test_text_of_a_user_stays_on_one_line() -> None:
    assert figures.one_line("a\n b\x1b[31m\u202e c") == "a b [31m c"
    assert figures.one_line("a" * 50, 10) == "aaaaaaa..."


def test_a_step_that_slows_or_grows_says_so() -> None:
    step = {"speedup": 0.5, "speedup_low": 0.45, "speedup_high": 0.55, "size_ratio": 0.25, "quality_delta": None}
    assert figures.step_gains(INT8, step) == "2.0x slower [1.8, 2.2], 4.0x larger"
    gained = {**step, "speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1, "size_ratio": 4.0}
    assert figures.step_gains(INT8, gained) == "2.0x faster [1.9, 2.1], 4.0x smaller"
