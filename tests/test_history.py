"""What the store keeps, found again by name."""

from __future__ import annotations

import pytest

from nbopt.errors import NbOptError, NbOptWarning, OptionError
from nbopt.history import RunCard, compared, latest, named, newest_workload, of_workload, run_list, run_named
from nbopt.runs import Run


def made(name: str, second: int, *, key: str = "k1", seed: int = 0, **figures: object) -> Run:
    recipe, runtime = name.split("/")
    return Run(
        id=f"{second:02d}{key}{name.encode().hex()}",
        name=name,
        recipe=recipe.replace("+", " | "),
        runtime=runtime,
        seed=seed,
        workload=f"of {key}",
        workload_key=key * 10,
        created=f"2026-11-01T00:00:{second:02d}.000+00:00",
        **figures,  # type: ignore[arg-type]
    )


@pytest.fixture
def runs() -> list[Run]:
    return [
        made("baseline/torch", 1),
        made("quantize/openvino", 2),
        made("baseline/torch", 3),
        made("quantize/openvino", 4),
        made("quantize/openvino", 5, seed=1),
        made("prune+quantize/openvino", 6),
        made("quantize/litert", 7, status="failed", reason="operator X"),
    ]


def test_the_latest_of_each_recipe_runtime_and_seed(runs: list[Run]) -> None:
    assert [run.created[17:19] for run in latest(runs)] == ["03", "04", "05", "06", "07"]
    # A baseline does not depend on the seed of the recipe that it stands beside.
    again = [*runs, made("baseline/torch", 8, seed=5)]
    assert latest(again)[0].created[17:19] == "08"
    assert len([run for run in latest(again) if run.is_baseline]) == 1


def test_all_or_those_named_beside_the_baselines(runs: list[Run]) -> None:
    assert [run.name for run in compared(runs)] == [
        "baseline/torch",
        "quantize/openvino#2",
        "quantize/openvino",
        "prune+quantize/openvino",
        "quantize/litert",
    ]
    assert [run.name for run in compared(runs, ["prune+quantize"])] == ["baseline/torch", "prune+quantize/openvino"]
    with pytest.raises(NbOptError, match="none is kept here yet"):
        compared([])


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("quantize/openvino", ["05"]),
        ("quantize/openvino#2", ["04"]),
        ("quantize", ["04", "05", "07"]),
        ("prune | quantize", ["06"]),
        ("02k1", ["02"]),
    ],
)
def test_a_name_means_runs(runs: list[Run], name: str, seconds: list[str]) -> None:
    assert [run.created[17:19] for run in named(runs, name)] == seconds


def test_a_name_that_means_none_or_several(runs: list[Run]) -> None:
    with pytest.raises(OptionError, match="did you mean 'quantize/openvino'"):
        named(runs, "quantise/openvino")
    with pytest.raises(OptionError, match="which fits 3"):
        run_named(runs, "quantize")
    with pytest.raises(OptionError):
        named(runs, "0")
    assert run_list(runs)["quantize/litert"].failed
    with pytest.raises(OptionError, match="which fits 2"):
        run_named([*runs, made("prune/openvino", 2)], "02k1")


def test_of_several_runs_of_a_name_the_newest_is_taken_and_told(runs: list[Run]) -> None:
    with pytest.warns(NbOptWarning, match="2 runs are named quantize/openvino; taken is the newest: .*, 05k1"):
        assert run_named(runs, "quantize/openvino").seed == 1
    assert run_named(runs, "quantize/openvino#2").seed == 0


def test_workloads(runs: list[Run]) -> None:
    runs = [*runs, made("baseline/torch", 9, key="k2")]
    assert {run.workload_key for run in newest_workload(runs)} == {"k2" * 10}
    assert len(of_workload(runs, "of k1")) == 7
    assert len(of_workload(runs, "k2k2")) == 1
    with pytest.raises(OptionError, match="did you mean 'of k1'"):
        of_workload(runs, "of k1x")
    assert newest_workload([]) == []


def test_a_list_of_runs(runs: list[Run]) -> None:
    shown = run_list(runs)
    assert len(shown) == 7
    lines = repr(shown).splitlines()
    assert lines[0] == "7 runs of of k1, newest first"
    assert "operator X" in lines[2]
    assert "workload" in repr(run_list(runs, by_workload=True)).splitlines()[1]


def test_a_card_escapes_and_leaves_out_what_was_not_measured() -> None:
    run = made("quantize/openvino", 1, notes=("<script>alert(1)</script>",), verdict="faster")
    bundle = RunCard(run)._repr_mimebundle_()
    assert "<script>" not in bundle["text/html"]
    assert "latency" not in bundle["text/plain"]
    assert "faster" in bundle["text/plain"]


def test_a_card_of_a_measured_run() -> None:
    run = made(
        "quantize/openvino",
        1,
        metric="accuracy",
        split="test",
        rows=10_000,
        quality=0.912,
        quality_low=0.906,
        quality_high=0.918,
        quality_delta=-0.001,
        quality_delta_low=-0.003,
        quality_delta_high=0.001,
        latency_ms=0.13,
        latency_low_ms=0.12,
        latency_high_ms=0.14,
        speedup=3.1,
        speedup_low=3.0,
        speedup_high=3.3,
        speedup_runtime=1.9,
        speedup_technique=1.6,
        size_bytes=350_000,
        params=1000,
        nonzero_params=500,
        environment={"cpu": "A", "threads": 2},
    )
    text = repr(RunCard(run))
    assert "on 10,000 rows of test" in text
    assert "x runtime x 1.6x technique" in text
    assert "0.35 MB" in text
    assert "1,000, 500 of them not zero" in text
    assert "A, 2 threads" in text
