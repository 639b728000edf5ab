"""Figures of a comparison: each with a picture, words, and Plotly's form; whatever names and figures come."""

from __future__ import annotations

import base64
import dataclasses
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from nbopt.comparison import Comparison, Limits
from nbopt.errors import NbOptError, OptionError
from nbopt.render.plots import KINDS, _errors, figure, latencies, layers, pareto
from tests.render import sample_runs

AUDIT = {
    "layers": [
        {"name": "conv", "kind": "Conv", "weight_dtype": "int8", "compute_dtype": "int8", "macs": 900, "weights": 10},
        {"name": "<head>", "kind": "Linear", "weight_dtype": "float32", "compute_dtype": "float32", "macs": 100,
         "weights": 10, "zeros": 5},
    ],
}  # fmt: skip
AUDITED = sample_runs.run_of("quantize/openvino", speedup=(3.1, 3.0, 3.3), delta=(0, 0, 0), audit=AUDIT)


def check(found: Any) -> str:
    ET.fromstring(found.svg)
    bundle = found._repr_mimebundle_()
    data = re.search(r"base64,([\w+/=]+)", bundle["text/html"])
    assert data is not None
    assert base64.b64decode(data[1]).decode() == found.svg
    assert bundle["application/vnd.plotly.v1+json"]["data"]
    assert "<script" not in bundle["text/html"]
    assert "<script" not in str(bundle["application/vnd.plotly.v1+json"])
    assert "<script" not in found.plotly.to_html(include_plotlyjs=False).split("Plotly.newPlot")[1]
    return str(found.said)


@pytest.mark.parametrize("kind", KINDS)
def test_each_has_a_picture_words_and_an_interactive_form(kind: str) -> None:
    comparison = Comparison([*sample_runs.EVERYTHING, AUDITED]) if kind != "layers" else Comparison([AUDITED])
    assert check(figure(comparison, kind))


def test_the_front_is_what_no_run_beats_and_the_limits_are_said() -> None:
    said = check(pareto(sample_runs.EVERYTHING, Limits(max_drop=0.01)))
    front = said.partition("nothing beats ")[2].partition(" on both")[0]
    assert "distill to a small CNN" in front
    assert "quantize int8 dynamic" not in front
    assert "of 6 are outside max_drop 0.01" in said
    assert "outside" not in pareto(sample_runs.EVERYTHING, Limits()).said
    unknown = dataclasses.replace(sample_runs.INT8, name="unknown", speedup=300.0, speedup_low=0.0, speedup_high=None)
    drawn = pareto(Comparison([*sample_runs.EVERYTHING, unknown]), Limits())
    assert "300x" not in drawn.svg


def test_a_control_that_beats_everything_leaves_a_front_of_the_others() -> None:
    control = sample_runs.run_of("control of prune/torch", quality=0.99, speedup=(9, 9, 9), latency=0.01)
    said = check(pareto(Comparison([*sample_runs.EVERYTHING, control]), Limits()))
    assert said == pareto(sample_runs.EVERYTHING, Limits()).said


def test_latency_shows_every_measured_run() -> None:
    said = check(latencies(sample_runs.EVERYTHING))
    assert said.count(" ms") == len([run for run in sample_runs.EVERYTHING if not run.failed])


def test_layers_tell_precision_zeros_and_share_of_the_work() -> None:
    said = check(layers(AUDITED))
    assert "conv 90% int8" in said
    assert "<head> 10% float32, 50% zeros" in said
    assert "<head>" not in layers(AUDITED).svg


def test_hostile_names_are_text() -> None:
    hostile = sample_runs.run_of("x/onnxruntime", sample_runs.HOSTILE, speedup=(2, 1.9, 2.1), delta=(0, 0, 0))
    for kind in ("pareto", "latency"):
        check(figure(Comparison([sample_runs.BASELINE, hostile]), kind))


def test_what_was_not_measured_is_told() -> None:
    with pytest.raises(NbOptError, match="none was measured"):
        figure(Comparison([sample_runs.REFUSED]), "pareto")
    with pytest.raises(NbOptError, match="not audited"):
        layers(sample_runs.BASELINE)
    with pytest.raises(OptionError, match="did you mean 'pareto'"):
        figure(sample_runs.EVERYTHING, "parieto")


def test_a_quality_of_0_is_a_quality_and_an_interval_may_reach_0() -> None:
    never = dataclasses.replace(sample_runs.ON_ORT, metric="f1", quality=0.0, quality_low=0.0, quality_high=0.1)
    assert "F1 against speedup" in check(pareto(Comparison([never]), Limits()))
    drawn = _errors([(dataclasses.replace(never, quality=0.05), 1.0, 0.05)])
    assert (drawn["array"], drawn["arrayminus"]) == ([0.05], [0.05])


def test_a_collapsed_run_is_told_of_where_nothing_is_demanded() -> None:
    collapsed = dataclasses.replace(sample_runs.INT8, verdict="collapsed: one class", quality=0.1)
    said = check(pareto(Comparison([sample_runs.BASELINE, sample_runs.ON_ORT, collapsed]), Limits()))
    assert said.endswith("; 1 of 3 collapsed")


def test_runs_of_two_workloads_are_no_figure_of_quality() -> None:
    other = dataclasses.replace(sample_runs.with_metric(sample_runs.INT8), workload_key="other")
    for kind in ("pareto", "layers"):
        with pytest.raises(NbOptError, match="those of 2: fashion-cnn, houses"):
            figure(Comparison([*sample_runs.EVERYTHING, other]), kind)
    assert check(figure(Comparison([*sample_runs.EVERYTHING, other]), "latency"))
