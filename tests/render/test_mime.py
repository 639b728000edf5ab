"""The bundle: three forms, and a payload that keeps its schema."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import jsonschema
from hypothesis import given, settings

from nbopt import render
from nbopt.comparison import Comparison
from nbopt.render.mime import ALWAYS
from nbopt.runs import Run
from tests.render.sample_runs import BASELINE, ENVIRONMENT, EVERYTHING, INT8, REFUSED, any_comparison, run_of


def valid(body: object) -> None:
    jsonschema.Draft202012Validator(render.schema()).validate(body)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(render.schema())


def test_the_schema_has_every_field_of_a_run() -> None:
    described = render.schema()["$defs"]["fields"]
    fields = {field.name for field in dataclasses.fields(Run)} - {"home"}
    assert set(described["properties"]) == fields


def test_a_comparison_shows_itself_in_three_forms() -> None:
    bundle = EVERYTHING._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.nbopt.comparison.v1+json", "text/html", "text/plain"}
    assert repr(EVERYTHING) == bundle["text/plain"] == render.text(EVERYTHING)
    valid(bundle[render.MIME])


def test_the_lab_extension_is_tested_on_what_is_written_here() -> None:
    kept = json.loads(Path(__file__).with_name("payload.json").read_text(encoding="utf-8"))
    assert kept == json.loads(json.dumps(render.payload(EVERYTHING)))
    # What labextension/test/pareto.test.ts expects of the same runs.
    front = {run.name for run in EVERYTHING.pareto()}
    assert front == {"baseline/onnxruntime", "quantize/openvino", "distill/onnxruntime"}


def test_runs_survive_the_payload() -> None:
    body = json.loads(json.dumps(render.payload(EVERYTHING), allow_nan=False))
    assert render.runs_of(body) == EVERYTHING.runs


@settings(max_examples=20)
@given(any_comparison)
def test_any_runs_survive_the_payload_but_for_what_is_not_finite(comparison: Comparison) -> None:
    body = json.loads(json.dumps(render.payload(comparison), allow_nan=False))
    again = render.payload(Comparison(render.runs_of(body)))
    # What is said of a figure that is not finite may differ from what is said of none.
    assert (again["shared"], again["runs"]) == (body["shared"], body["runs"])


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


def test_a_colour_says_nothing_that_the_words_beside_it_do_not() -> None:
    words = {"latency": "busy", "size": "same", "quality": "same", "memory": "better"}
    run = run_of("baseline/onnxruntime", verdicts=words, verdict="speed inconclusive, machine busy")
    rows = render.payload(Comparison([BASELINE, run]))["workloads"][0]["rows"]
    assert [row["tone"] for row in rows] == ["plain", "plain"]


def test_no_runs() -> None:
    valid(render.payload(Comparison([])))
    assert Comparison([])._repr_mimebundle_()["text/plain"] == "No runs yet."


def test_figures_that_are_not_finite_become_null() -> None:
    run = dataclasses.replace(INT8, speedup_high=math.inf, environment={"a": [math.nan, {"b": -math.inf}]})
    body = render.payload(Comparison([run]))
    assert json.loads(json.dumps(body, allow_nan=False))["shared"]["environment"] == {"a": [None, {"b": None}]}
    valid(body)


def environment(number: int) -> dict[str, object]:
    return {**ENVIRONMENT, "versions": {f"package-{number}-{i}": "1.0" for i in range(100)}}


def test_what_all_runs_have_in_common_stands_once() -> None:
    runs = [run_of(f"quantize/openvino#{i}", environment={**ENVIRONMENT, "foreign_load": i / 10}) for i in range(3)]
    comparison = Comparison([*runs, REFUSED])
    body = render.payload(comparison)
    assert body["shared"]["environment"] == ENVIRONMENT
    assert [run.get("environment") for run in body["runs"]] == [*({"foreign_load": i / 10} for i in range(3)), None]
    assert render.runs_of(body) == comparison.runs
    valid(body)


def test_a_large_comparison_is_cut_and_says_so() -> None:
    runs = [run_of(f"quantize/openvino#{i}", delta=(0, 0, 0), environment=environment(i)) for i in range(60)]
    slim = render.payload(Comparison([BASELINE, *runs]), 200_000)
    assert slim["left_out"] == ["environments"]
    assert len(slim["runs"]) == 61
    short = render.payload(Comparison([BASELINE, *runs]), 30_000)
    assert short["left_out"][-1].endswith("of 61 runs")
    for body in (slim, short):
        valid(body)
    assert len(json.dumps(short).encode()) <= 30_000


def test_two_hundred_rows_are_a_bundle_of_less_than_300_kb_and_two_thousand_keep_every_row() -> None:
    def many(count: int) -> Comparison:
        return Comparison(
            [
                BASELINE,
                *(
                    run_of(
                        f"prune+quantize/onnxruntime#{i}" if i % 2 else f"quantize/openvino#{i}",
                        "prune 0.25 structured + quantize int8 static" if i % 2 else "quantize int8 static",
                        delta=(-0.001, -0.003, 0.001),
                        speedup=(3.1 + i / 977, 3.0, 3.3 + i / 97),
                        factors=(1.9, 1.6),
                        environment={**ENVIRONMENT, "foreign_load": i / 7},
                        verdicts={"quality": "same", "latency": "better", "technique": "busy", "size": "same"},
                        notes=("144 of 288 units in 4 places were taken out", f"{i % 8} layers were measured again"),
                    )
                    for i in range(count - 1)
                ),
            ]
        )

    bundle = render.bundle(many(200))
    lines = bundle["text/plain"].splitlines()
    assert sum(line.endswith("same accuracy [1] [2]") for line in lines) > 20  # in one line with its run
    assert len(json.dumps(bundle, ensure_ascii=False).encode()) < 300_000
    assert bundle["text/html"].count("<tr") == 201
    assert len(bundle[render.MIME]["runs"]) == 200
    valid(bundle[render.MIME])
    large = render.payload(many(2000))
    assert len(large["runs"]) == 2000
    assert not any(word.endswith("runs") for word in large["left_out"])
    valid(large)


def test_what_the_schema_requires_is_there_though_it_is_empty() -> None:
    required = render.schema()["$defs"]["run"]["required"]
    assert list(ALWAYS) == required
    body = render.payload(Comparison([Run()]))
    assert set(required) <= body["runs"][0].keys()
    valid(body)


@settings(max_examples=60)
@given(any_comparison)
def test_any_runs_give_a_valid_payload(comparison: Comparison) -> None:
    body = render.payload(comparison)
    valid(json.loads(json.dumps(body, allow_nan=False)))
