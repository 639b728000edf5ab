"""The main job: one recipe on one workload, measured beside its baselines, kept, gated, interrupted."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from nbopt.bounds import within
from nbopt.comparison import COLUMNS, Comparison
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, GateFailed, Interrupted, ModelError, NbOptWarning, OptionError
from nbopt.loop import optimize
from nbopt.measurement.metrics import metric_of
from nbopt.progress import Progress
from nbopt.recipe import Recipe
from nbopt.runs import RunStore
from nbopt.stage import choose_runtimes
from nbopt.technique import Technique
from nbopt.techniques.prune import Prune
from nbopt.techniques.quantize import Quantize
from nbopt.workload import Workload
from tests import models
from tests.conftest import Digits, Measured
from tests.processes import ANEW, PREPARED, workers

Start = Callable[..., "subprocess.Popen[str]"]


def test_rows_are_the_baselines_on_each_runtime_and_then_the_recipe(comparison: Comparison, workload: Workload) -> None:
    runtimes = [runtime.name for runtime in choose_runtimes(workload, None)]
    assert runtimes[0] == "torch"
    assert {"onnxruntime", "openvino"} < set(runtimes)
    names = [run.name for run in comparison]
    assert names[: len(runtimes)] == [f"baseline/{name}" for name in runtimes]
    assert names[len(runtimes) : -1] == ["prune+quantize/onnxruntime", "prune+quantize/openvino"]
    assert names[-1] == "control/onnxruntime"  # the untouched model after the same training
    assert not any(run.failed for run in comparison)
    run = comparison["prune+quantize/openvino"]
    assert Recipe.parse(run.recipe) == Recipe.of(Prune(sparsity=0.5), Quantize())
    assert run.label == "prune 0.5 unstructured + quantize int8 static"


def test_the_frame_has_every_figure_of_the_contract(comparison: Comparison) -> None:
    frame = comparison.frame().set_index("run")
    assert ["run", *frame.columns] == list(COLUMNS)
    unmeasured = {"cost_usd"}
    for column in set(frame.columns) - unmeasured:
        assert frame.loc["prune+quantize/openvino", column] is not None, column
    numbers = frame.loc["prune+quantize/openvino"].drop(["reason", *unmeasured])
    assert not numbers.isna().any()
    assert (frame["reason"] == "").all()
    assert (frame["contention"] >= 1).all()
    assert (frame["quality_low"] <= frame["quality"]).all()
    assert (frame["quality"] <= frame["quality_high"]).all()
    assert (frame["latency_low_ms"] <= frame["latency_ms"]).all()
    assert (frame["latency_ms"] <= frame["latency_high_ms"]).all()


def test_a_speedup_is_the_product_of_what_runtime_and_technique_gave(comparison: Comparison) -> None:
    frame = comparison.frame()
    product = frame["speedup_runtime"] * frame["speedup_technique"]
    np.testing.assert_allclose(product, frame["speedup"], rtol=1e-12)
    baselines = frame["recipe"] == "baseline"
    assert (frame.loc[baselines, "speedup_technique"] == 1).all()
    assert frame.loc[0, ["speedup", "speedup_runtime"]].tolist() == [1, 1]


def test_pruning_and_quantizing_are_found_in_the_artifact(comparison: Comparison) -> None:
    baseline = comparison["baseline/openvino"]
    assert baseline.dtype == "float32"
    for name in ("prune+quantize/onnxruntime", "prune+quantize/openvino"):
        run = comparison[name]
        assert run.dtype.startswith("int8")
        assert run.precision == "int8"
        assert run.params == baseline.params == 4810
        assert run.nonzero_params is not None
        assert run.nonzero_params < 0.55 * 4810
        assert run.quality is not None
        assert baseline.quality is not None
        assert run.quality > baseline.quality - 0.05


def test_each_step_of_a_pipeline_says_what_it_gave(comparison: Comparison) -> None:
    for runtime in ("onnxruntime", "openvino"):
        run, baseline = comparison[f"prune+quantize/{runtime}"], comparison[f"baseline/{runtime}"]
        assert [step["words"] for step in run.steps] == ["prune 0.5 unstructured", "quantize int8 static"]
        ratio = np.prod([step["size_ratio"] for step in run.steps])
        assert ratio == pytest.approx(baseline.size_bytes / run.size_bytes)
        assert run.steps[1]["size_ratio"] > 1.3 > run.steps[0]["size_ratio"]
        assert run.steps[-1]["size_bytes"] == run.size_bytes
        assert run.steps[-1]["quality"] == run.quality
        lost = sum(step["quality_delta"] for step in run.steps)
        assert lost == pytest.approx(run.quality - baseline.quality)
        # The product of medians is not the median of products, but near it: all come from the same rounds.
        gained = np.prod([step["speedup"] for step in run.steps])
        assert gained == pytest.approx(run.speedup_technique, rel=0.35)
        assert all(step["speedup_low"] <= step["speedup"] <= step["speedup_high"] for step in run.steps)
        assert next(kept for kept in RunStore(run.home).runs(run.workload_key) if kept.id == run.id).steps


def test_one_step_alone_is_no_pipeline(workload: Workload, store: RunStore) -> None:
    found = optimize(workload, Quantize(), runtimes=["onnxruntime"], threads=1, store=store)
    assert found["quantize/onnxruntime"].steps == ()


def test_throughput_is_known_by_batch_size(comparison: Comparison) -> None:
    for run in comparison:
        assert set(run.throughputs) == {"1", "8", "64"}
        assert run.throughput == max(run.throughputs.values()) == run.throughputs[str(run.throughput_batch)]


def test_what_measuring_took_is_told_beside_the_techniques_own_time(comparison: Comparison) -> None:
    for run in comparison:
        assert run.measure_seconds is not None
        assert run.measure_seconds > 0
        assert run.search_seconds is not None
        assert run.search_seconds > 0


def test_nothing_of_the_users_changed(measured: Measured) -> None:
    for part, value in measured.before.items():
        assert measured.after[part] == value, part


QUALITY_IN_A_NEW_PROCESS = """
    import sys
    import numpy as np
    from nbopt.runs import RunStore
    data = np.load(sys.argv[2])
    for run in RunStore(sys.argv[1]).runs():
        print(run.id, repr(float((run.predict(data["x"]).argmax(1) == data["y"]).mean())))
"""


def test_a_new_process_gets_the_tables_quality_from_the_reloaded_artifact(
    comparison: Comparison, store: RunStore, digits: Digits, tmp_path: Path, run_python: Start
) -> None:
    x, y = digits.test
    np.savez(tmp_path / "test.npz", x=x, y=y)
    out, errors = run_python(QUALITY_IN_A_NEW_PROCESS, str(store.home), str(tmp_path / "test.npz")).communicate()
    found = {run_id: float(value) for run_id, value in (line.split() for line in out.splitlines())}
    assert errors == ""
    for run in comparison:
        assert found[run.id] == run.quality, run.name


def test_the_interval_and_the_difference_are_of_the_same_outputs(
    comparison: Comparison, workload: Workload, digits: Digits
) -> None:
    x, y = digits.test
    metric = metric_of("accuracy", output=workload.output)
    base, run = comparison["baseline/torch"], comparison["prune+quantize/openvino"]
    both = [metric(y, torch.softmax(torch.from_numpy(r.predict(x)), -1).numpy()) for r in (base, run)]
    assert run.quality_delta == pytest.approx(both[1] - both[0], abs=1e-12)
    agreement = (run.predict(x).argmax(1) == base.predict(x).argmax(1)).mean()
    assert run.agreement == pytest.approx(agreement, abs=1e-12)


def test_every_row_was_on_disk_and_its_model_comes_back(
    comparison: Comparison, store: RunStore, digits: Digits
) -> None:
    kept = {run.id: run for run in store.runs()}
    for run in comparison:
        assert kept[run.id] == dataclasses.replace(run, name=kept[run.id].name)
    model = comparison["prune+quantize/openvino"].model
    assert isinstance(model, nn.Module)
    assert not any("mask" in name or "orig" in name for name in model.state_dict())
    zeros = sum(int((value == 0).sum()) for value in model.state_dict().values())
    assert zeros > 0.45 * 4810


def test_baselines_are_measured_once_and_come_back_in_the_next_comparison(
    comparison: Comparison, workload: Workload, store: RunStore
) -> None:
    again = optimize(workload, threads=1, store=store)
    assert [run.id for run in again] == [run.id for run in comparison if run.is_baseline]


def test_a_broken_limit_fails_with_all_rows(comparison: Comparison, workload: Workload, store: RunStore) -> None:
    with pytest.raises(GateFailed, match=r"max_size \(bytes\) 10") as caught:
        optimize(workload, Quantize(), runtimes="onnxruntime", max_size=10, threads=1, store=store)
    rows = caught.value.comparison
    assert [run.name for run in rows] == ["baseline/torch", "baseline/onnxruntime", "quantize/onnxruntime"]
    assert rows["quantize/onnxruntime"].quality is not None
    assert "quantize/onnxruntime" in caught.value.came
    assert rows["quantize/onnxruntime"].id in {run.id for run in store.runs()}


class Stopping:
    """Press Ctrl-C, as IPython delivers it, when the work has come to a place."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __call__(self, progress: Progress) -> None:
        if progress.what.startswith(self.place):
            raise KeyboardInterrupt


def test_an_interrupt_keeps_what_is_done_and_still_stops(
    comparison: Comparison, workload: Workload, store: RunStore, digits: Digits
) -> None:
    with pytest.raises(Interrupted, match="4 rows were finished") as caught:
        optimize(workload, Quantize(), threads=1, store=store, progress=Stopping("quantize on OpenVINO"))
    rows = caught.value.comparison
    assert [run.name for run in rows][-1] == "quantize/onnxruntime"
    assert rows["quantize/onnxruntime"].predict(digits.x[:3]).shape == (3, 10)
    assert {run.id for run in rows} <= {run.id for run in store.runs()}
    assert workers() == []


def test_an_interrupt_in_training_leaves_the_users_model_as_it_was(
    measured: Measured, workload: Workload, store: RunStore, digits: Digits
) -> None:
    with pytest.raises(Interrupted, match="3 rows"):
        optimize(workload, Prune(epochs=3), threads=1, store=store, progress=Stopping("training"))
    with torch.no_grad():
        assert workload.model(torch.from_numpy(digits.x)).numpy().tobytes() == measured.before["outputs"]


def workers_of(home: Path) -> list[psutil.Process]:
    """Return the processes of measuring that belong to a store, whoever started them, and what they are forked from."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = {ANEW, PREPARED} & set(process.cmdline())
            if ours and process.environ().get("NBOPT_HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


OPTIMIZE = """
    import numpy as np, torch, nbopt
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()
    rng = np.random.default_rng(0)
    data = rng.normal(size=(200, 8)).astype("float32"), rng.integers(0, 3, 200)
    work = nbopt.Workload(model, train=(data[0][:50], data[1][:50]), valid=(data[0][50:], data[1][50:]))
    def tell(progress):
        if progress.what == "measured":
            print(progress.note, flush=True)
    nbopt.optimize(work, nbopt.Quantize(), runtimes="onnxruntime", threads=1, progress=tell)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_is_stopped_leaves_every_finished_run_and_no_worker(
    how: signal.Signals, run_python: Start, home: Path
) -> None:
    process = run_python(OPTIMIZE)
    assert process.stdout is not None
    assert process.stdout.readline() == "baseline/torch\n"
    process.send_signal(how)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == (-how if how == signal.SIGKILL else 1) or how == signal.SIGINT
    assert process.returncode != 0
    if how == signal.SIGINT:
        assert "Interrupted" in errors
    finished = ["baseline/torch", *out.split()]
    runs = RunStore(home).runs()
    assert [run.name for run in runs][: len(finished)] == finished
    assert runs[0].predict(np.zeros((2, 8), np.float32)).shape == (2, 3)
    deadline = time.monotonic() + 30
    while workers_of(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers_of(home) == []


class Branching(nn.Module):
    """A model that no exporter can trace: which layer it takes depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) if x.sum() > 0 else self.right(x)


def test_what_a_runtime_can_not_take_is_a_row_with_the_reason() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(64, 6)).astype(np.float32), rng.integers(0, 3, 64)
    work = Workload(Branching().eval(), train=data, valid=data)
    result = optimize(work, Quantize(), runtimes=["onnxruntime", "keras"], threads=1)
    assert [run.name for run in result] == [
        "baseline/torch",
        "baseline/onnxruntime",
        "baseline/keras",
        "quantize/onnxruntime",
        "quantize/keras",
    ]
    failed = [run for run in result if run.name != "baseline/torch"]
    assert all(run.failed and run.verdict == "failed" and run.reason for run in failed)
    assert "not of torch" in result["baseline/keras"].reason
    assert "not of torch" in result["quantize/keras"].reason
    assert result.best() == result["baseline/torch"]
    assert {run.id for run in result} == {run.id for run in RunStore().runs()}
    assert repr(result)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_the_untouched_model_on_another_runtime_is_the_same_on_few_rows_too(metric: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 12)).astype(np.float32)
    y = (x @ rng.normal(size=(12, 3)) + rng.normal(size=(200, 3))).argmax(1)
    torch.manual_seed(0)
    # Each runtime approximates tanh in its own way.
    model = models.train(nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3)), x, y)
    result = optimize(Workload(model, valid=(x, y), metric=metric), runtimes=["onnxruntime", "openvino"], threads=1)
    for name in ("baseline/onnxruntime", "baseline/openvino"):
        run = result[name]
        assert run.max_error is not None
        assert 0 < run.max_error < 1e-4, "outputs differ in their last digits"
        assert run.verdicts["quality"] == "same"
        assert within(run, 0.001)


class OfOneRow(nn.Module):
    """A model that forgets the batch: whatever comes, it answers for the first row."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.model(x)[:1]
        return answer


@dataclasses.dataclass(frozen=True)
class Forget(Technique):
    """Take the batch axis from a model, as a conversion that goes wrong may."""

    word: ClassVar[str] = "forget"

    def apply(self, draft: Draft, context: Context) -> Draft:
        return draft.with_(model=OfOneRow(draft.model).eval())


def test_an_artifact_that_answers_for_other_rows_than_there_are_is_a_failed_row(workload: Workload) -> None:
    result = optimize(workload, Forget(), runtimes=["torch", "onnxruntime"], threads=1)
    failed = [run for run in result if not run.is_baseline]
    assert [run.name for run in failed] == ["forget/torch", "forget/onnxruntime"]
    assert all(run.failed and "does not keep the batch axis" in run.reason for run in failed)
    assert not any(run.failed for run in result if run.is_baseline)


def test_a_model_that_is_trained_on_after_binding_gets_new_baselines() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    y = x[:, :3].argmax(1)
    torch.manual_seed(0)
    model = models.mlp(6, 3, 16)
    work = Workload(model, valid=(x, y))
    before = optimize(work, runtimes="torch", threads=1)
    models.train(model, x, y)
    after = optimize(work, runtimes="torch", threads=1)
    assert before["baseline/torch"].workload_key != after["baseline/torch"].workload_key
    assert after["baseline/torch"].quality > before["baseline/torch"].quality + 0.2  # type: ignore[operator]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtimes": "openvin"}, "did you mean 'openvino'"),
        ({"runtimes": ["torch", "tensorrrt"]}, "a runtime among"),
        ({"measure": "fast"}, "quick, full"),
        ({"threads": 0}, "threads of 1 or more"),
        ({"max_drop": -1}, "max_drop"),
    ],
)
def test_arguments_out_of_range_are_told_before_any_work(
    workload: Workload, arguments: dict[str, Any], message: str, home: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        optimize(workload, Quantize(), **arguments)
    assert not home.exists()


def test_what_is_no_workload_and_no_technique_is_told(workload: Workload, trained_mlp: nn.Module) -> None:
    with pytest.raises(OptionError, match=r"nbopt\.Workload\(model"):
        optimize(trained_mlp, Quantize())  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="a technique, a recipe or its text"):
        optimize(workload, Quantize)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="did you mean 'quantize'"):
        optimize(workload, "quantise")


def test_an_error_half_way_brings_the_rows_that_were_measured(
    comparison: Comparison, workload: Workload, store: RunStore, digits: Digits
) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :10]

    work = Workload(Two().eval(), train=digits.train, valid=digits.valid)
    with pytest.raises(ModelError, match="weights to prune") as caught:
        optimize(work, Prune(), runtimes="torch", threads=1)
    assert [run.name for run in caught.value.comparison] == ["baseline/torch"]


def test_pruning_without_train_data_is_not_fine_tuned_and_says_so(digits: Digits, trained_mlp: nn.Module) -> None:
    work = Workload(trained_mlp, valid=digits.valid)
    result = optimize(work, Prune(sparsity=0.3), runtimes="torch", threads=1)
    run = result["prune/torch"]
    assert any("not fine-tuned" in note for note in run.notes)
    assert run.epochs is None
    with pytest.raises(DataError, match="again on each pass"):
        Workload(trained_mlp, valid=iter([digits.valid]))


def climb(output: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    """A loss without a bottom."""
    return -(output**16).mean()


def test_a_training_that_diverges_is_a_failed_row_beside_the_others(digits: Digits, trained_mlp: nn.Module) -> None:
    work = Workload(trained_mlp, train=digits.train, valid=digits.valid)
    before = [weight.tobytes() for _, weight in work.framework.weights(work.model)]
    spiky = Workload(trained_mlp, train=digits.train, valid=digits.valid, loss=climb)
    for each in (work, spiky):
        rate = 0.001 if each is work else 10.0 - 1e-6
        result = optimize(each, Prune(learning_rate=rate, epochs=2), runtimes=["torch", "onnxruntime"], threads=1)
        names = ["baseline/torch", "baseline/onnxruntime", "prune/torch", "prune/onnxruntime"]
        rows = [run for run in result if not run.is_control]
        assert [run.name for run in rows] == names
        assert [run.failed for run in rows] == [False, False, each is spiky, each is spiky]
        assert len(rows) == len(result) - (each is work)  # what did not train needs no control
    reasons = {run.reason for run in result if run.failed}
    assert len(reasons) == 1
    assert "training diverged" in next(iter(reasons))
    assert "--learning-rate 1 (a tenth)" in next(iter(reasons))
    assert [weight.tobytes() for _, weight in work.framework.weights(work.model)] == before


def test_seeds_whose_training_diverged_are_told_with_their_seed(digits: Digits, trained_mlp: nn.Module) -> None:
    work = Workload(trained_mlp, train=digits.train, valid=digits.valid, loss=climb)
    result = optimize(work, Prune(learning_rate=9.0), seed=3, seeds=2, runtimes="torch", threads=1)
    assert result["prune/torch"].failed
    kept = [run for run in RunStore().runs() if run.recipe.startswith("prune") and not run.seeds]
    assert [run.seed for run in kept] == [3, 4]


def test_a_keras_model_of_own_classes_comes_back_in_its_kernel(run_python: Start) -> None:
    from tests import keras_models

    untouched, (x,) = keras_models.subclassed()
    data = np.tile(x, (20, 1)), np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    result = optimize(Workload(untouched, train=data, valid=data), Prune(), runtimes="keras", threads=1)
    run = result["prune/keras"]
    for each in result:
        model = each.model
        assert type(model) is type(untouched)
        assert model is not each.model, "what a user does to it stays with the user"
        np.testing.assert_allclose(each.predict(x), np.asarray(model(x, training=False)), atol=1e-5)
    kernels = [weight for weight in run.model.get_weights() if weight.ndim > 1]
    assert sum(int((kernel == 0).sum()) for kernel in kernels) > 0.3 * sum(kernel.size for kernel in kernels)
    # A kernel that was restarted has the function, and says why it has no more.
    again = run_python(f"""
        import nbopt
        from nbopt.runs import RunStore
        run = next(run for run in RunStore().runs() if run.id == {run.id!r})
        try:
            run.model
        except nbopt.errors.NbOptError as error:
            print(error)
    """)
    told = again.communicate(timeout=120)[0]
    assert "does not hold the code of your own classes" in told
    assert "%optimize rerun prune/keras" in told


def test_a_keras_recipe_gives_its_model_back() -> None:
    from tests.runtimes.keras_models import model as keras_model

    rng = np.random.default_rng(0)
    data = rng.normal(size=(100, 64)).astype(np.float32), rng.integers(0, 10, 100)
    untouched = keras_model("mlp")
    before = [weight.tobytes() for weight in untouched.get_weights()]
    result = optimize(Workload(untouched, train=data, valid=data), Prune(), runtimes="keras", threads=1)
    assert [run.name for run in result] == ["baseline/keras", "prune/keras", "control/keras"]
    pruned = result["prune/keras"].model
    zeros = sum(int((weight == 0).sum()) for weight in pruned.get_weights())
    assert zeros > 0.45 * pruned.count_params()
    assert [weight.tobytes() for weight in untouched.get_weights()] == before
    np.testing.assert_allclose(
        result["prune/keras"].predict(data[0][:5]), np.asarray(pruned(data[0][:5], training=False)), atol=1e-5
    )


@pytest.mark.parametrize("drop", [1, 2.0])
def test_of_a_drop_that_allows_all_of_a_share_to_be_lost_one_is_warned(
    workload: Workload, store: RunStore, drop: float
) -> None:
    with pytest.warns(NbOptWarning, match="lets all of accuracy go"):
        found = optimize(workload, runtimes=["torch"], max_drop=drop, store=store)
    assert not found["baseline/torch"].failed
