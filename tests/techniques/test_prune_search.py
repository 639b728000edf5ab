"""Sensitivity, allocation, the searched sparsity and the control row, on a trained net and as a user runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.draft import Context, Deployed, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.loop import optimize
from nbopt.narrowing.lowering import Ranking, lowering_of
from nbopt.narrowing.subjects import Units, Weights
from nbopt.reproduce import rerun
from nbopt.runs import RunStore
from nbopt.techniques._prune.scan import scan
from nbopt.techniques.prune import Prune
from nbopt.workload import Workload
from tests.conftest import Digits


@pytest.fixture(scope="module")
def work(trained_cnn: nn.Module, digits: Digits) -> Workload:
    images = digits.x.reshape(-1, 1, 8, 8)
    splits = {
        name: (images[part], digits.y[part]) for name, part in (("train", slice(0, 1000)), ("valid", slice(1000, 1800)))
    }
    return Workload(trained_cnn, **splits, name="cnn")


@pytest.mark.parametrize("structured", [False, True])
def test_each_layer_alone_is_pruned_and_put_back(work: Workload, structured: bool) -> None:
    context = Context(work)
    ranking = Ranking("magnitude", lowering_of(context), context)
    model = work.framework.clone(work.model)
    subject: Any = (
        Units(ranking.lowering.trace(model, work.signature.example), ranking) if structured else Weights(model, ranking)
    )
    before = {name: value.copy() for name, value in ranking.lowering.prunable_weights(subject.model).items()}
    found = scan(subject, context)
    after = ranking.lowering.prunable_weights(subject.model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert set(found.losses) == set(subject.sizes)
    assert all(len(losses) == 3 for losses in found.losses.values())
    assert all(losses[0] <= losses[2] + 0.05 for losses in found.losses.values())
    fractions = found.shares(0.4)
    assert sum(fractions[n] * s for n, s in found.sizes.items()) / sum(found.sizes.values()) == pytest.approx(
        0.4, abs=0.02
    )
    kept = found.to_dict()
    assert kept["what"] == "accuracy lost on valid when one layer alone is pruned"
    assert set(kept["chosen"]) == set(kept["layers"])


def test_each_layer_is_judged_on_rows_of_every_class_though_they_are_sorted() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(5000, 6)).astype(np.float32)
    x = x[np.argsort(x[:, 0])]
    y = (x[:, 0] > 2).astype(np.int64)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    context = Context(Workload(model, train=(x, y), valid=(x, y), metric="auc"))
    found = scan(Weights(model, Ranking("magnitude", lowering_of(context), context)), context)
    assert set(found.losses) == {"0.weight", "2.weight", "4.weight"}


def test_by_sensitivity_a_run_keeps_what_was_measured_and_shows_it(work: Workload) -> None:
    from nbopt.history import RunCard
    from nbopt.render.mime import bundle, schema

    step = Prune(sparsity=0.3, scope="sensitivity", structured=True, epochs=1)
    result = optimize(work, step, runtimes=["onnxruntime"])
    run = result["prune/onnxruntime"]
    assert set(run.sensitivity["layers"]) == {"features.0", "features.4"}
    assert any("pruned alone" in note for note in run.notes)
    card = RunCard(run)
    assert "when one layer alone is pruned" in repr(card)
    assert "features.4" in repr(card)
    assert "background:" in card._repr_mimebundle_()["text/html"]
    import jsonschema

    shown = bundle(result)
    jsonschema.validate(next(value for key, value in shown.items() if "json" in key), schema())
    assert "when one layer alone is pruned" in shown["text/html"]


def test_the_untouched_model_given_the_same_training_has_a_row(work: Workload, tmp_path: Any) -> None:
    store = RunStore(tmp_path / "store")
    result = optimize(work, Prune(sparsity=0.9, epochs=2, learning_rate=0.01), runtimes=["onnxruntime"], store=store)
    control = result["control/onnxruntime"]
    assert control.is_control
    assert control.label == "train 2 epochs (control)"
    assert control.epochs == 2
    assert control.nonzero_params == control.params == result.baseline.params
    assert control.quality_delta is not None
    assert result.best(max_drop=1.0).name != control.name
    assert result["prune/onnxruntime"].recipe == control.recipe.removeprefix("control of ")
    again = rerun(work, control, store=store)
    assert again.new.label == control.label
    assert again.new.quality == pytest.approx(control.quality, abs=0.02)
    untrained = optimize(work, Prune(epochs=0), runtimes=["onnxruntime"], store=store)
    assert not any(run.is_control for run in untrained)


def test_a_control_row_answers_for_no_limit(work: Workload) -> None:
    from nbopt.errors import GateFailed

    with pytest.raises(GateFailed):
        optimize(work, Prune(sparsity=0.5, epochs=1), runtimes=["onnxruntime"], max_size=1)
    with pytest.raises(GateFailed) as caught:
        optimize(work, Prune(sparsity=0.98, epochs=1, learning_rate=1e-6), runtimes=["onnxruntime"], max_drop=0.01)
    assert "control" not in str(caught.value)


def test_the_least_sparsity_within_a_size_is_found_by_the_file(work: Workload) -> None:
    baseline = optimize(work, runtimes=["onnxruntime"])["baseline/onnxruntime"]
    limit = int(0.55 * baseline.size_bytes)
    result = optimize(
        work, Prune(sparsity="auto", structured=True, epochs=1), runtimes=["onnxruntime"], max_size=limit, max_drop=None
    )
    run = result["prune/onnxruntime"]
    assert 0.75 * limit < run.size_bytes <= limit
    note = next(note for note in run.notes if "tried" in note)
    assert "bytes" in note
    assert run.label.startswith("prune auto structured")


def applied(work: Workload, step: Prune, **limits: Any) -> Draft:
    return step.apply(Draft(work.model), Context(work, **limits))


def test_a_limit_that_the_model_is_within_as_it_is_needs_no_search(work: Workload) -> None:
    context = Context(work, max_size=1e9, deploy=lambda _: Deployed("ONNX Runtime", 1000, 1.0))
    with pytest.raises(OptionError, match="1,000 bytes") as caught:
        Prune(sparsity="auto", structured=True, epochs=0).apply(Draft(work.model), context)
    assert "takes pruning" in caught.value.expected


def test_latency_is_searched_where_the_model_will_run(work: Workload) -> None:
    def deploy(model: Any) -> Deployed:
        return Deployed("a runtime", 1000, sum(p.numel() for p in model.parameters()) / 1000)

    draft = applied(work, Prune(sparsity="auto", structured=True, epochs=0), max_latency=3.0, deploy=deploy)
    size = sum(p.numel() for p in draft.model.parameters()) / 1000
    assert 2.4 < size <= 3.0 * 0.95
    with pytest.raises(ModelError, match="too much"):
        applied(work, Prune(sparsity="auto", structured=True, epochs=0), max_latency=0.001, deploy=deploy)


def test_the_greatest_sparsity_within_a_loss_is_found_on_validation(work: Workload) -> None:
    strict = applied(work, Prune(sparsity="auto", epochs=0), max_drop=0.01)
    loose = applied(work, Prune(sparsity="auto", epochs=0), max_drop=0.3)

    def zeros(draft: Draft) -> float:
        model = draft.finish[-1](draft.model)
        assert Context(work).lost(Context(work).score(work.model), Context(work).score(model)) <= 0.3
        return float(np.mean([float((p == 0).float().mean()) for p in model.parameters() if p.dim() > 1]))

    assert 0.02 < zeros(strict) < zeros(loose)
    assert any("tried" in note and "lost" in note for note in strict.notes)


def test_a_search_without_what_it_needs_is_told(work: Workload) -> None:
    with pytest.raises(OptionError, match="--max-drop"):
        applied(work, Prune(sparsity="auto"))
    with pytest.raises(OptionError, match="--structured"):
        applied(work, Prune(sparsity="auto"), max_size=100.0)
    with pytest.raises(OptionError, match="sparsity"):
        Prune(sparsity="much")  # type: ignore[arg-type]
