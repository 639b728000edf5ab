"""The bundle: three forms, and a payload that keeps its schema."""

from __future__ import annotations

import dataclasses
import json
import math

import jsonschema
from hypothesis import given, settings

from nbopt import render
from nbopt.comparison import Comparison
from nbopt.runs import Run
from tests.render.sample_runs import BASELINE, ENVIRONMENT, EVERYTHING, INT8, any_comparison, run_of


def valid(body: object) -> None:
    jsonschema.Draft202012Validator(render.schema()).validate(body)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(render.schema())


def test_the_schema_has_every_field_of_a_run() -> None:
    described = render.schema()["$defs"]["run"]
    fields = {field.name for field in dataclasses.fields(Run)} - {"home"}
    assert set(described["properties"]) == fields
    assert set(described["required"]) == fields


def test_a_comparison_shows_itself_in_three_forms() -> None:
    bundle = EVERYTHING._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.nbopt.comparison.v1+json", "text/html", "text/plain"}
    assert repr(EVERYTHING) == bundle["text/plain"] == render.text(EVERYTHING)
    valid(bundle[render.MIME])


def test_runs_survive_the_payload() -> None:
    body = json.loads(json.dumps(render.payload(EVERYTHING), allow_nan=False))
    assert tuple(Run.from_dict(run) for run in body["runs"]) == EVERYTHING.runs


def test_the_payload_says_what_the_headline_says() -> None:
    body = render.payload(EVERYTHING)
    (workload,) = body["workloads"]
    assert (body["version"], body["left_out"]) == (1, [])
    assert (workload["baseline"], workload["best"]) == ("baseline/torch", "quantize/openvino")
    assert "".join(part["text"] for part in workload["strong"]).startswith("3.1x faster [3.0, 3.3]")
    assert [row["run"] for row in workload["rows"]] == [run.name for run in EVERYTHING]
    tones = {row["run"]: row["tone"] for row in workload["rows"]}
    assert tones["quantize/openvino"] == "good"
    assert tones["quantize/litert"] == "bad"
    assert tones["distill/onnxruntime"] == "mixed"
    assert tones["quantize/litert#2"] == "muted"


def test_a_run_whose_outputs_cannot_be_trusted_is_red() -> None:
    what = "every row is predicted as class 3"
    lost = dataclasses.replace(INT8, verdict=f"collapsed: {what}", reason=f"collapsed: {what}; why; do")
    body = render.payload(Comparison([BASELINE, lost]))
    assert body["workloads"][0]["rows"][1]["tone"] == "bad"


def test_no_runs() -> None:
    valid(render.payload(Comparison([])))
    assert Comparison([])._repr_mimebundle_()["text/plain"] == "No runs yet."


def test_figures_that_are_not_finite_become_null() -> None:
    run = dataclasses.replace(INT8, speedup_high=math.inf, environment={"a": [math.nan, {"b": -math.inf}]})
    body = render.payload(Comparison([run]))
    assert json.loads(json.dumps(body, allow_nan=False))["runs"][0]["environment"] == {"a": [None, {"b": None}]}
    valid(body)


def test_a_large_comparison_is_cut_and_says_so() -> None:
    bulky = {**ENVIRONMENT, "versions": {f"package-{i}": "1.0" for i in range(100)}}
    runs = [run_of(f"quantize/openvino#{i}", delta=(0, 0, 0), environment=bulky) for i in range(60)]
    slim = render.payload(Comparison([BASELINE, *runs]), 200_000)
    assert slim["left_out"] == ["environments"]
    assert len(slim["runs"]) == 61
    short = render.payload(Comparison([BASELINE, *runs]), 50_000)
    assert short["left_out"][1].endswith("of 61 runs")
    for body in (slim, short):
        valid(body)
    assert len(json.dumps(short).encode()) <= 50_000


@settings(max_examples=60, deadline=None)
@given(any_comparison)
def test_any_runs_give_a_valid_payload(comparison: Comparison) -> None:
    body = render.payload(comparison)
    valid(json.loads(json.dumps(body, allow_nan=False)))
