"""TF-MOT for models of tf_keras: rounding and masks that are trained in, and gone from the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbopt
from nbopt.draft import Context, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.fitting import train
from nbopt.frameworks import Fitting
from nbopt.frameworks.tf_keras import FRAMEWORK
from nbopt.recipe import Recipe
from nbopt.runtimes import Layer, Manifest, runtime_named
from nbopt.training import TrainingPlan
from tests.tf_keras_models import cnn, embedding, halves, lstm, nested, subclassed


@dataclass
class Done:
    """Hold what a recipe made, without its measurement."""

    model: Any
    notes: str
    layers: tuple[Layer, ...]
    size: int
    leftovers: tuple[str, ...]
    right: float


def carried_out(work: nbopt.Workload, recipe: str, folder: Path, runtime: str = "litert") -> Done:
    context, draft = Context(work), Draft(work.model)
    for step in Recipe.parse(recipe).techniques:
        draft = step.apply(draft, context)
    for ready in draft.ready:
        draft = ready(draft, context)
    if draft.plan.epochs:
        draft, _ = train(draft, context, 0)
    model = draft.model
    for finish in draft.finish:
        model = finish(model)
    kind = runtime_named(runtime)
    exported, notes = FRAMEWORK.export(model, work.signature, folder / f"model{kind.suffix}", kind.form), draft.notes
    for index, step in enumerate(draft.lower):
        (folder / str(index)).mkdir()
        lowered = step(model, work.signature, exported, kind, folder / str(index), context)
        exported, notes = lowered.exported, notes + lowered.notes
    manifest = Manifest(runtime, tuple(work.signature.names), batch=exported.batch)
    session = kind.load(exported.path, manifest, threads=1)
    inputs = next(work.select_rows.batches())
    right = float((session.run(inputs).argmax(-1) == work.select_rows.targets[: len(inputs[0])]).mean())
    layers = kind.layers(exported.path, session, tuple(leaf[:1] for leaf in inputs))
    size = exported.path.stat().st_size
    return Done(model, "; ".join(notes), layers, size, kind.leftovers(exported.path, session), right)


@pytest.fixture(scope="module")
def work() -> nbopt.Workload:
    x, y = halves()
    model = cnn()
    made = nbopt.Workload(model, train=(x[:400], y[:400]), valid=(x[400:], y[400:]))
    assert made.train is not None
    FRAMEWORK.fit(model, TrainingPlan(epochs=12, learning_rate=0.01), Fitting(made.train, made.loss))
    return made


def zeros(model: Any) -> dict[str, float]:
    kernels = [v for v in model.trainable_variables if "kernel" in v.name]
    return {v.name.rpartition("/")[0]: float((v.numpy() == 0).mean()) for v in kernels}


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("prune --sparsity 0.5", "ConstantSparsity"),
        ("prune --sparsity 0.7 --schedule cubic --epochs 2", "PolynomialDecay"),
        ("prune --sparsity 0.6 --schedule iterative --epochs 2", "PolynomialDecay"),
    ],
)
def test_tf_mot_prunes_each_layer_alike_and_leaves_no_wrapper(
    work: nbopt.Workload, recipe: str, told: str, tmp_path: Path
) -> None:
    before = FRAMEWORK.state(work.model)
    done = carried_out(work, recipe, tmp_path)
    assert f"prune_low_magnitude ({told})" in done.notes
    assert "leaves depthwise_conv2d whole" in done.notes
    share, found = float(recipe.split()[2]), zeros(done.model)
    assert found.pop("depthwise_conv2d") == 0
    assert all(abs(part - share) < 0.05 for part in found.values()), found
    assert [type(layer) for layer in done.model.layers] == [type(layer) for layer in work.model.layers]
    assert all(np.array_equal(a, b) for a, b in zip(before, FRAMEWORK.state(work.model), strict=True))
    assert sum(layer.zeros for layer in done.layers) > 0.9 * share * sum(layer.weights for layer in done.layers)
    assert done.leftovers == ()
    # Beside negative zeros, zeros deflate worse.
    assert not any(np.signbit(v.numpy()[v.numpy() == 0]).any() for v in done.model.trainable_variables)


@pytest.mark.parametrize("options", ["", "--scope global"])
def test_an_embedding_table_is_pruned_where_it_is_named(options: str, tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 50, (200, 6)).astype(np.int32)
    data = (ids[:100], ids[:100, 0] % 2), (ids[100:], ids[100:, 0] % 2)
    work = nbopt.Workload(embedding(), train=data[0], valid=data[1])
    plain = carried_out(work, f"prune {options}", tmp_path)
    assert "embedding" in plain.notes
    assert "--include takes them in" in plain.notes
    (tmp_path / "named").mkdir()
    every = carried_out(work, f"prune --include * {options}", tmp_path / "named")
    assert "--include" not in every.notes
    shares = [float((done.model.weights[0].numpy() == 0).mean()) for done in (plain, every)]
    assert shares[0] == 0
    assert shares[1] > 0.3
    assert ("prune_low_magnitude" in every.notes) == (not options)


@pytest.mark.parametrize("options", ["--scope global", "--importance taylor", "--pattern 2:4"])
def test_what_tf_mot_has_not_is_done_by_own_masks(work: nbopt.Workload, options: str, tmp_path: Path) -> None:
    done = carried_out(work, f"prune {options}", tmp_path)
    assert "prune_low_magnitude" not in done.notes
    kernels = [v.numpy() for v in done.model.trainable_variables if "kernel" in v.name]
    assert sum((k == 0).sum() for k in kernels) >= 0.45 * sum(k.size for k in kernels)


@pytest.mark.parametrize("make", [nested, subclassed])
def test_a_model_that_tf_mot_does_not_take_gets_own_masks_and_a_note(make: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    work = nbopt.Workload(make(), train=(x[:100], (x[:100, 0] > 0) * 1), valid=(x[100:], (x[100:, 0] > 0) * 1))
    done = carried_out(work, "prune", tmp_path)
    assert "nbopt's own" in done.notes
    count, nonzero = FRAMEWORK.count(done.model)
    assert nonzero < 0.6 * count


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_qat_becomes_an_int8_file_without_fake_quantizers(work: nbopt.Workload, runtime: str, tmp_path: Path) -> None:
    done = carried_out(work, "quantize --method qat --epochs 2", tmp_path, runtime)
    assert {layer.compute_dtype for layer in done.layers} == {"int8"}
    assert done.leftovers == ()
    assert ("ranges are those of qat" in done.notes) == (runtime == "litert")
    outputs = FRAMEWORK.predict(work.model, next(work.select_rows.batches()))
    assert done.right > (outputs.argmax(-1) == work.select_rows.targets[: len(outputs)]).mean() - 0.05


def test_rounding_changes_little_before_anything_is_trained(work: nbopt.Workload) -> None:
    draft = nbopt.Quantize(method="qat").apply(Draft(work.model), Context(work))
    inputs = next(work.select_rows.batches())
    plain, rounded = (FRAMEWORK.predict(model, inputs) for model in (work.model, draft.model))
    # TF-MOT by itself starts each range at -6 to 6, weights too, which leaves nothing of a model.
    assert np.abs(plain - rounded).mean() < 0.05


def test_qat_with_int8_inputs_for_microcontrollers(work: nbopt.Workload, tmp_path: Path) -> None:
    whole = carried_out(work, "quantize --method qat --epochs 1 --io int8", tmp_path)
    assert {layer.compute_dtype for layer in whole.layers} == {"int8"}
    assert whole.right > 0.7


def test_masks_and_qat_in_one_recipe_are_refused(work: nbopt.Workload, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="recipe of its own"):
        carried_out(work, "prune | quantize --method qat", tmp_path)


def test_qat_tells_what_it_does_not_round(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 12, 6)).astype(np.float32)
    y = np.random.default_rng(0).integers(0, 3, 60)
    work = nbopt.Workload(lstm(), train=(x, y), valid=(x[:20] + 1, y[:20]))
    done = carried_out(work, "quantize --method qat --epochs 1", tmp_path, "openvino")
    assert "without rounding in lstm" in done.notes


def test_a_sparse_file_is_smaller_and_says_so(work: nbopt.Workload, tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    sparse = carried_out(work, "prune --sparsity 0.8 --sparse-file", tmp_path)
    dense = carried_out(work, "prune --sparsity 0.8", tmp_path / "dense")
    assert sparse.size < 0.6 * dense.size
    assert sum("stored without zeros" in layer.note for layer in sparse.layers) >= 3
    assert [layer.zeros for layer in sparse.layers] == [layer.zeros for layer in dense.layers]
    assert sparse.right == dense.right


def test_other_runtimes_get_their_file_as_it_is(work: nbopt.Workload, tmp_path: Path) -> None:
    assert "hold zeros as they are" in carried_out(work, "prune --sparse-file", tmp_path, "onnxruntime").notes


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_what_was_quantized_is_not_pruned(work: nbopt.Workload, dtype: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="prune before quantize"):
        carried_out(work, f"quantize --dtype {dtype} | prune --sparsity 0.8 --sparse-file", tmp_path)


def test_a_step_after_the_sparse_file_is_refused(work: nbopt.Workload, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="last step"):
        carried_out(work, "prune --sparse-file | quantize", tmp_path)


@pytest.mark.slow
def test_the_row_of_a_qat_model_is_measured_and_audited(work: nbopt.Workload) -> None:
    found = nbopt.optimize(work, "quantize --method qat --epochs 1", runtimes="litert")
    (run,) = [run for run in found if run.name.startswith("quantize")]
    assert not run.failed, run.reason
    assert run.framework == "tf_keras"
    assert run.speedup is not None
    assert type(run.model).__module__.startswith("tf_keras")
