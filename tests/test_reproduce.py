"""A kept run is repeated from its record, and the two are compared figure by figure."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbopt.comparison import Comparison
from nbopt.errors import Interrupted, OptionError
from nbopt.progress import Progress
from nbopt.reproduce import Reproduction, rerun
from nbopt.runs import RunStore
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.render.sample_runs import BASELINE, INT8, REFUSED


def test_a_run_of_two_techniques_with_a_training_repeats_itself(
    comparison: Comparison, workload: Workload, store: RunStore, tmp_path: Path
) -> None:
    old = comparison["prune+quantize/onnxruntime"]
    # Read back from the store, as in a later kernel, and kept in another.
    kept = next(run for run in store.runs() if run.id == old.id)
    again = rerun(workload, kept, store=RunStore(tmp_path / "other"))
    assert (again.old.id, again.new.recipe, again.new.seed) == (old.id, old.recipe, old.seed)
    assert again.new.id != old.id
    assert again.new.environment["threads"] == old.environment["threads"] == 1
    assert [run.name for run in again.comparison] == [
        "baseline/torch", "baseline/onnxruntime", "prune+quantize/onnxruntime", "prune+quantize/onnxruntime#2",
    ]  # fmt: skip
    # One seed, one training: the very same file.
    assert again.new.artifact_sha256 == old.artifact_sha256
    assert again.new.quality == old.quality
    told = {each.name: each for each in again.agreements}
    assert told["accuracy"].agree
    assert told["size"].agree
    assert told["speedup"].words.startswith(("speedups overlap", "speedups do not overlap"))
    assert again.agrees == told["speedup"].agree
    assert "accuracy equal" in again.text
    assert "the file is the same byte for byte" in again.text
    assert again.text in again.new.notes
    bundle = again._repr_mimebundle_()
    assert str(bundle["text/plain"]).startswith(again.text)
    assert "prune+quantize/onnxruntime#2" in str(bundle["text/plain"])
    assert any("json" in kind for kind in bundle)


def test_a_run_that_broke_its_gate_is_repeated_within_the_same(
    comparison: Comparison, workload: Workload, tmp_path: Path
) -> None:
    old = dataclasses.replace(comparison["prune+quantize/onnxruntime"], max_drop=0.0)
    again = rerun(workload, old, store=RunStore(tmp_path / "other"))
    assert again.new.max_drop == 0.0
    assert again.new.recipe == old.recipe


def test_an_interrupt_keeps_what_is_done_beside_the_run_that_it_repeats(
    comparison: Comparison, workload: Workload, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.what.startswith("prune"):
            raise KeyboardInterrupt

    old = comparison["prune+quantize/onnxruntime"]
    with pytest.raises(Interrupted, match="2 rows were finished") as caught:
        rerun(workload, old, store=RunStore(tmp_path / "other"), progress=stop)
    rows = caught.value.comparison
    assert [run.name for run in rows] == ["baseline/torch", "baseline/onnxruntime", old.name]
    assert rows[old.name].id == old.id


def test_a_baseline_is_measured_again(workload: Workload, comparison: Comparison, store: RunStore) -> None:
    old = comparison["baseline/onnxruntime"]
    again = rerun(workload, old, store=store)
    assert again.new.id != old.id
    assert again.new.created > old.created
    assert again.new.artifact_sha256
    assert again.new.quality == old.quality
    assert [run.name for run in again.comparison] == [
        "baseline/torch",
        "baseline/onnxruntime",
        "baseline/onnxruntime#2",
    ]


def other(workload: Workload, digits: Digits, **changes: Any) -> Workload:
    given = {"train": digits.train, "valid": digits.valid, "test": digits.test, "name": "digits", **changes}
    return Workload(given.pop("model", workload.model), **given)


def test_another_model_or_other_data_is_refused_with_what_differs(
    workload: Workload, comparison: Comparison, digits: Digits
) -> None:
    run = comparison["prune+quantize/onnxruntime"]
    trained = copy.deepcopy(workload.model)
    with torch.no_grad():
        trained[0].weight.mul_(1.01)
    x, y = digits.test
    cases = {
        "the model's weights": other(workload, digits, model=trained),
        "reporting rows 546 instead of 547": other(workload, digits, test=(x[1:], y[1:])),
        "the content of the reporting rows": other(workload, digits, test=(x[::-1].copy(), y[::-1].copy())),
        "metric balanced_accuracy instead of accuracy": other(workload, digits, metric="balanced_accuracy"),
        "reporting split valid instead of test": other(workload, digits, test=None),
    }
    for words, changed in cases.items():
        with pytest.raises(OptionError) as caught:
            rerun(changed, run)
        assert words in caught.value.came
        assert run.workload_key[:8] in caught.value.expected
    gone = dataclasses.replace(run, home=str(Path(run.home) / "gone"))
    with pytest.raises(OptionError, match="weights, or the content of the reporting rows"):
        rerun(cases["the model's weights"], gone)


@pytest.mark.parametrize(
    ("old", "new", "agrees", "words"),
    [
        ({}, {}, True, "agrees: accuracy equal (91.2%), size equal (346,000 bytes), speedups overlap (3.1x [3.0, 3.3]"),
        ({}, {"quality": 0.913}, True, "accuracy within its interval (91.2% and 91.3%)"),
        ({}, {"quality": 0.95, "quality_low": 0.94, "quality_high": 0.96}, False, "does not agree: accuracy apart"),
        ({}, {"size_bytes": 7}, False, "does not agree: size 346,000 and 7 bytes; accuracy equal"),
        ({}, {"speedup": 4.0, "speedup_low": 3.9, "speedup_high": 4.1}, False, "speedups do not overlap"),
        ({}, {"artifact_sha256": "b"}, True, "the file's bytes differ"),
        ({}, {"speedup": None, "speedup_low": None, "speedup_high": None}, False, "speedup not measured in one"),
        ({}, {"environment": {"threads": 1}}, True, "different conditions: threads (1, 2)"),
        ({}, {"verdict": "collapsed: x", "quality": None}, False, "the new run collapsed"),
        ({"verdict": "collapsed: x"}, {"verdict": "collapsed: x"}, True, "both collapsed"),
        ({"metric": ""}, {"metric": ""}, True, "quality not measured in either"),
    ],
)
def test_what_agrees_and_what_does_not(old: Any, new: Any, agrees: bool, words: str) -> None:
    first = dataclasses.replace(INT8, artifact_sha256="a", **old)
    second = dataclasses.replace(INT8, id="2", **{"artifact_sha256": "a", **new})
    found = Reproduction(first, second, Comparison([BASELINE, first, second]))
    assert found.agrees == agrees
    assert words in found.text
    assert found.text.startswith("quantize/openvino of 2026-11-23 18:00 UTC, repeated with seed 0, ")


def test_a_run_that_failed_agrees_with_one_that_failed_again() -> None:
    again = Reproduction(REFUSED, dataclasses.replace(REFUSED, id="2"), Comparison([REFUSED]))
    assert again.agrees
    assert "both failed" in again.text
    works = Reproduction(REFUSED, INT8, Comparison([REFUSED, INT8]))
    assert not works.agrees
    assert "the first run failed" in works.text


def test_an_unlabelled_latency_is_compared_where_there_is_no_speedup() -> None:
    one = dataclasses.replace(BASELINE, speedup_low=None, speedup_high=None)
    apart = dataclasses.replace(one, latency_ms=9.0, latency_low_ms=8.9, latency_high_ms=9.1)
    assert not Reproduction(one, apart, Comparison([one])).agrees
    assert Reproduction(one, one, Comparison([one])).agrees
    assert np.isfinite(one.latency_ms or 0)


def test_a_recipe_with_an_object_can_not_be_repeated_from_its_text(comparison: Comparison, workload: Workload) -> None:
    old = dataclasses.replace(comparison["prune+quantize/onnxruntime"], recipe="distill --student {Net of 5 weights}")
    with pytest.raises(OptionError, match="an object that is not kept"):
        rerun(workload, old)
