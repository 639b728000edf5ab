"""Amp: what it may try here, what it takes, and what it says of the rest."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbopt.children import cores
from nbopt.data import Split
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ModelError, OptionError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.loop import optimize
from nbopt.measurement.environment import has_bfloat16
from nbopt.measurement.intervals import Interval
from nbopt.recipe import Recipe
from nbopt.techniques import amp
from nbopt.techniques._amp.choice import HALVES, Tried, candidates, chosen
from nbopt.techniques._amp.trial import tried
from nbopt.techniques.amp import Amp
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits, belongings

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no bfloat16")
RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(2048, 512)).astype(np.float32)
CLASSES = WIDE[:, :8].argmax(1)


def wide() -> Any:
    """Return a net of which bfloat16 steps take less than half the time on CPUs that compute in it."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 8)]
    return nn.Sequential(*layers).eval()


@pytest.fixture
def wide_work() -> Workload:
    train, valid = (WIDE[:1536], CLASSES[:1536]), (WIDE[1536:1792], CLASSES[1536:1792])
    return Workload(wide(), train=train, valid=valid, test=(WIDE[1792:], CLASSES[1792:]), name="wide")


def timed(precision: str, value: float, low: float, high: float, *, clear: bool = True) -> Tried:
    return Tried(precision, Interval(value, low, high), clear, f"{precision} {value}")


# What may be tried


@pytest.mark.parametrize(
    ("asked", "device", "native", "fast", "expected"),
    [
        ("auto", "cpu", ("bfloat16",), True, ("bfloat16",)),
        ("auto", "cpu", ("bfloat16",), False, ()),
        ("auto", "mps:0", (), True, ()),
        ("auto", "cuda:0", HALVES, False, HALVES),
        ("auto", "cuda:0", ("float16",), False, ("float16",)),
        ("float16", "cuda:0", HALVES, False, ("float16",)),
        ("bfloat16", "cpu", ("bfloat16",), True, ("bfloat16",)),
    ],
)
def test_what_is_tried_follows_the_device(
    asked: str, device: str, native: tuple[str, ...], fast: bool, expected: tuple[str, ...]
) -> None:
    assert candidates(asked, device, native, fast) == expected


@pytest.mark.parametrize(
    ("asked", "device", "native", "fast", "came", "do"),
    [
        ("float16", "cpu", ("bfloat16",), True, "a model on cpu", "--precision bfloat16"),
        ("float16", "cpu", ("bfloat16",), False, "50 times slower", "leave amp out"),
        ("float16", "mps", (), False, "a model on mps", "cuda"),
        ("bfloat16", "cpu", ("bfloat16",), False, "AVX512-BF16", "leave amp out"),
        ("bfloat16", "cuda:0", ("float16",), False, "before Ampere", "--precision float16"),
        ("bfloat16", "mps", (), False, "mps", "leave amp out"),
    ],
)
def test_what_can_not_be_had_is_told_with_what_to_do(
    asked: str, device: str, native: tuple[str, ...], fast: bool, came: str, do: str
) -> None:
    with pytest.raises(OptionError) as caught:
        candidates(asked, device, native, fast)
    assert came in caught.value.came
    assert do in caught.value.do


# What is taken


@pytest.mark.parametrize(
    ("found", "gain", "expected"),
    [
        ([], 1.1, None),
        ([timed("bfloat16", 2.0, 1.9, 2.1)], 1.1, "bfloat16"),
        ([timed("bfloat16", 1.2, 1.05, 1.3)], 1.1, None),
        ([timed("bfloat16", 2.0, 1.9, 2.1, clear=False)], 1.1, None),
        ([timed("bfloat16", 0.8, 0.7, 0.9)], 0, "bfloat16"),
        ([timed("bfloat16", 2.0, 1.9, 2.1), timed("float16", 2.05, 1.95, 2.15)], 1.1, "bfloat16"),
        ([timed("bfloat16", 2.0, 1.9, 2.1), timed("float16", 3.0, 2.9, 3.1)], 1.1, "float16"),
        ([Tried("bfloat16", None, True, "no kernel")], 0, None),
    ],
)
def test_the_fastest_is_taken_where_it_gains_enough(found: list[Tried], gain: float, expected: str | None) -> None:
    best = chosen(found, gain)
    assert (best.precision if best else None) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(HALVES), st.floats(0.1, 10), st.floats(0.5, 1), st.floats(1, 2), st.booleans()),
        max_size=3,
    ),
    st.floats(0.1, 5),
)
def test_nothing_is_taken_whose_interval_does_not_reach_the_gain(
    drawn: list[tuple[str, float, float, float, bool]], gain: float
) -> None:
    found = [timed(name, v, v * low, v * high, clear=clear) for name, v, low, high, clear in drawn]
    best = chosen(found, gain)
    good = [each for each in found if each.clear and each.faster is not None and each.faster.low >= gain]
    assert (best is None) == (not good)
    assert best is None or best in good


# On real models


def timed_in_quiet(draft: Draft, context: Context, steps: int = 20) -> Tried:
    """Return what timed steps in bfloat16 say; on a busy machine, which may not be ranked, they are timed again."""
    for _ in range(12):
        (found,) = tried(draft, context, ("bfloat16",), steps)
        if found.clear:
            break
        time.sleep(5)
    return found


def settle(work: Workload, step: Amp) -> None:
    """Have an untouched model's steps timed on a quiet machine: what is clear is remembered."""
    if has_bfloat16():
        timed_in_quiet(step.apply(Draft(work.model), Context(work)), Context(work))


@needs_bfloat16
def test_a_wide_net_trains_in_bfloat16_beside_its_training_in_float32(wide_work: Workload) -> None:
    step = Amp(epochs=2, batch_size=512)
    settle(wide_work, step)
    result = optimize(wide_work, step, runtimes=["torch"], threads=1)
    run, control = result["amp/torch"], result["control/torch"]
    first, second = run.notes[:2]
    assert first.startswith("before training, a step in bfloat16 is")
    assert "faster than float32" in first
    assert "MB and" in first
    assert second == "trained in bfloat16: none of 6 steps was skipped"
    assert any("in float32" in note for note in control.notes)
    assert run.dtype == control.dtype == "float32"
    assert run.train_seconds
    assert control.train_seconds
    assert run.epochs == control.epochs == 2
    # The same training, bit for bit but for the precision.
    assert abs((run.quality or 0) - (control.quality or 0)) < 0.1
    assert run.artifact_sha256 != control.artifact_sha256


@needs_bfloat16
def test_steps_are_timed_once_for_the_untouched_model(wide_work: Workload) -> None:
    step = Amp(batch_size=512)
    context = Context(wide_work)
    draft = step.apply(Draft(wide_work.model), context)
    settle(wide_work, step)
    before = belongings(wide_work.model, WIDE[:20])
    one = step.decide(draft, context)
    assert belongings(wide_work.model, WIDE[:20]) == before
    assert one.plan.precision == "bfloat16"
    told: list[str] = []
    again = Context(wide_work, seed=1, progress=lambda progress: told.append(progress.what))
    assert step.decide(draft, again).notes == one.notes
    assert told == []
    copied = draft.with_(model=wide_work.framework.clone(wide_work.model))
    other = timed_in_quiet(copied, again)
    assert other.faster is not None
    assert other.faster.value > 1.2
    assert told


def test_a_tiny_net_is_refused_with_the_figures(workload: Workload) -> None:
    step = Amp(min_gain=1.1)
    settle(workload, step)
    result = optimize(workload, step, runtimes=["torch"], threads=1)
    run = result["amp/torch"]
    assert run.failed
    assert "mixed precision refused" in run.reason
    assert "control/torch" not in [each.name for each in result]
    if has_bfloat16():
        assert re.search(r"slower than float32 \(float32 [\d.]+ ms, bfloat16 [\d.]+ ms", run.reason), run.reason


def test_in_a_pipeline_a_refusal_is_a_note_and_training_is_float32(workload: Workload) -> None:
    draft = Draft(workload.model, TrainingPlan(epochs=1, learning_rate=5e-3))
    step = Amp()
    decided = step.decide(step.apply(draft, Context(workload)), Context(workload))
    assert decided.plan == draft.plan.adjusted(epochs=3)
    assert decided.notes[-1].startswith("mixed precision refused, trained in float32: ")


def test_on_a_cpu_without_bfloat16_it_is_refused(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amp, "has_bfloat16", lambda: False)
    result = optimize(workload, Amp(), runtimes=["torch"], threads=1)
    assert "none of AVX512-BF16, AMX-BF16 and BF16" in result["amp/torch"].reason
    with pytest.raises(OptionError, match="computes in bfloat16"):
        optimize(workload, Amp(precision="bfloat16"), runtimes=["torch"])


def test_float16_without_a_gpu_is_refused_before_anything_is_trained(workload: Workload) -> None:
    with pytest.raises(OptionError, match="CUDA GPU") as caught:
        optimize(workload, Amp(precision="float16"), runtimes=["torch"])
    assert "model.to('cuda')" in caught.value.do


def test_it_needs_train_data_and_a_float32_model(workload: Workload, digits: Digits) -> None:
    import torch

    with pytest.raises(DataError, match="train data"):
        Amp().apply(Draft(workload.model), Context(Workload(workload.model, valid=digits.valid)))
    half = torch.nn.Sequential(torch.nn.Linear(64, 10)).bfloat16().eval()
    work = Workload(half, train=digits.train, valid=digits.valid)
    with pytest.raises(ModelError, match="float32"):
        Amp().apply(Draft(half), Context(work))


def test_its_options_reach_the_plan_and_leave_alone_what_is_not_given(workload: Workload) -> None:
    draft = Draft(workload.model, TrainingPlan(epochs=5, learning_rate=0.02, batch_size=16))
    context = Context(workload)
    assert Amp().apply(draft, context).plan == draft.plan
    assert Amp(epochs=7, learning_rate=0.1, batch_size=32).apply(draft, context).plan == draft.plan.adjusted(
        epochs=7, learning_rate=0.1, batch_size=32
    )
    nothing = Amp(epochs=0).apply(Draft(workload.model), context)
    assert Amp(epochs=0).decide(nothing, context).notes == ("amp changed nothing: the recipe trains no epoch",)


def test_a_model_without_kernels_in_a_half_is_told(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    from tests.models import Lstm

    steps = RNG.normal(size=(64, 5, 8)).astype(np.float32)
    labels = RNG.integers(0, 10, 64)
    model: nn.Module = Lstm().eval()
    work = Workload(model, train=(steps, labels), valid=(steps, labels))
    draft = Draft(model, TrainingPlan(epochs=1))
    (found,) = tried(draft, Context(work), ("float16",), 3)
    assert found.faster is None
    assert "float16 can't be computed by this model" in found.told
    assert chosen([found], 0) is None


def test_numbers_of_a_keras_model_are_timed_too() -> None:
    from tests.keras_models import L, keras

    keras.utils.set_random_seed(0)
    body = [L.Dense(1024, "relu"), L.Dense(1024, "relu"), L.Dense(8)]
    model = keras.Sequential([keras.Input((512,)), *body])
    work = Workload(model, train=(WIDE, CLASSES), valid=(WIDE[:64], CLASSES[:64]))
    draft = Draft(model, TrainingPlan(epochs=1, batch_size=1024))
    (found,) = tried(draft, Context(work), ("bfloat16",), 5)
    assert found.faster is not None
    assert "TensorFlow counts none on a CPU" in found.note
    if has_bfloat16():
        assert found.faster.value > 1.1


# On several devices


@pytest.mark.slow
def test_two_processes_train_one_candidate_beside_a_control_in_one(workload: Workload) -> None:
    step = Amp(epochs=2, devices=2, min_gain=90)
    result = optimize(workload, step, runtimes=["torch"], threads=1)
    run, control = result["amp/torch"], result["control/torch"]
    assert not run.failed, run.reason
    # No half is faster, and so the training in two processes is in float32: there is something to do all the same.
    assert any(note.startswith("mixed precision refused, trained in float32: ") for note in run.notes)
    (told,) = (note for note in run.notes if note.startswith("trained in 2 processes"))
    assert "a step is 32 rows as in one process, 16 or fewer in each" in told
    assert not any("2 processes" in note for note in control.notes)
    assert any("in one process" in note for note in control.notes)
    assert run.epochs == control.epochs == 2
    assert abs((run.quality or 0) - (control.quality or 0)) < 0.05


def test_what_several_devices_can_not_do_is_refused_before_anything_is_trained(workload: Workload) -> None:
    held = Recipe.parse("prune --sparsity 0.5 | amp --devices 2").techniques
    with pytest.raises(OptionError, match="changes them after each step"):
        optimize(workload, *held, runtimes=["torch"])
    with pytest.raises(OptionError, match="cores"):
        optimize(workload, Amp(devices=cores() + 1), runtimes=["torch"])


def test_a_keras_model_on_several_devices_is_told_what_to_do() -> None:
    from tests.keras_models import L, keras

    model = keras.Sequential([keras.Input((512,)), L.Dense(8)])
    work = Workload(model, train=(WIDE[:64], CLASSES[:64]), valid=(WIDE[:64], CLASSES[:64]))
    with pytest.raises(OptionError, match="one device") as caught:
        Amp(devices=2).apply(Draft(model), Context(work))
    assert "MirroredStrategy" in caught.value.do


def test_the_recipe_reads_it() -> None:
    (step,) = Recipe.parse("amp --precision bfloat16 --epochs 5 --learning-rate 0.01 --batch-size 256").techniques
    assert step == Amp(precision="bfloat16", epochs=5, learning_rate=0.01, batch_size=256)
    assert step.label == "amp precision bfloat16 epochs 5 learning-rate 0.01 batch-size 256"


def test_a_wrong_label_is_blamed_on_the_data_not_on_the_precision(workload: Workload) -> None:
    work = Workload(workload.model, train=(WIDE[:50, :64], np.full(50, 99)), valid=(WIDE[:50, :64], CLASSES[:50]))
    with pytest.raises(DataError, match="labels"):
        tried(Draft(workload.model, TrainingPlan(epochs=1)), Context(work), ("bfloat16",), 3)


def test_a_fitting_without_batches_is_told(workload: Workload) -> None:
    fitting = Fitting(Split(lambda: iter(()), "train"), workload.loss)
    with pytest.raises(DataError):
        workload.framework.stepping(workload.model, TrainingPlan(), fitting)


def test_alone_and_not_faster_is_an_error_that_the_loop_turns_into_a_row(workload: Workload) -> None:
    step, context = Amp(min_gain=90), Context(workload)
    with pytest.raises(TrainingError, match="90 times faster"):
        step.decide(step.apply(Draft.of(workload), context), context)
