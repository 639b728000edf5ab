"""Curves: few points whatever comes, pictures that an untrusted notebook keeps."""

from __future__ import annotations

import base64
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from nbopt.jupyter.curves import MOST_POINTS, Curve, Curves
from nbopt.progress import Progress


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=1500))
def test_a_curve_keeps_few_points_and_the_lowest(values: list[float]) -> None:
    curve = Curve("loss")
    for value in values:
        curve.add(value)
    finite = [value for value in values if math.isfinite(value)]
    assert len(curve.values) <= MOST_POINTS
    assert curve.lowest == min(finite, default=math.inf)
    assert not finite or curve.last == finite[-1]


def test_the_picture_is_an_image_with_its_figures_in_words() -> None:
    curve = Curve('loss"><script>')
    for step in range(1000):
        curve.add(1 / (1 + step))
    html = curve.picture()
    data = re.search(r"base64,([\w+/=]+)", html)
    assert data is not None
    svg = base64.b64decode(data[1]).decode()
    points = re.search(r'points="([^"]+)"', svg)
    assert points is not None
    heights = [float(pair.split(",")[1]) for pair in points[1].split()]
    assert heights == sorted(heights), "a falling loss falls: a picture's y grows downward"
    assert "<script>" not in html
    assert "to 0.001" in html
    assert Curve("loss").picture() == ""


def test_the_large_picture_says_its_range() -> None:
    curve = Curve("loss")
    for value in (0.75, 0.25, 0.5):
        curve.add(value)
    data = re.search(r"base64,([\w+/=]+)", curve.figure())
    assert data is not None
    svg = base64.b64decode(data[1]).decode()
    assert re.findall(r">([^<]+)</text>", svg) == ["0.75", "0.25", "loss of the training: now 0.5", "steps"]
    assert Curve("loss").figure() == ""


def test_a_step_that_begins_anew_has_a_curve_of_its_own() -> None:
    curves = Curves()
    for _ in range(2):
        for step in range(5):
            curves.take(Progress("training", step, 5, figure=("loss", 1.0 - step / 10)))
    curves.take(Progress("measuring", 0.5, 1.0))
    assert [len(curve.values) for curve in curves.all] == [5, 5]
    assert curves.of(Progress("training")) is curves.now
    assert curves.of(Progress("measuring")) is None
