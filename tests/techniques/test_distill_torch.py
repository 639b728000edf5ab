"""Distillation of torch modules: every kind of student and of output, on real and on small data."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nbopt
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, ModelError, OptionError
from nbopt.frameworks import framework_of
from nbopt.frozen import Leaf
from nbopt.teaching import family_of
from nbopt.techniques._distill import choosing
from nbopt.techniques._distill.simple import columns_of, designs
from nbopt.techniques._distill_torch.students import build
from nbopt.techniques._distill_torch.tables import vocabulary
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import mlp, train
from tests.techniques.distill_inputs import CASES


def applied(step: Any, work: Workload, draft: Draft | None = None) -> Draft:
    return step.apply(draft or Draft(work.model), Context(work))


def test_pruned_and_distilled_in_one_training_beside_the_same_on_labels_alone(workload: Workload) -> None:
    result = nbopt.optimize(workload, "prune --structured | distill --epochs 2", runtimes=["onnxruntime"])
    run, plain = result["prune+distill/onnxruntime"], result["prune+distill/onnxruntime#2"]
    assert run.epochs == plain.epochs == 2
    assert run.params == plain.params < result["baseline/torch"].params
    assert any("taught by the bound model" in note for note in run.notes)
    assert "learns from the labels alone" in plain.notes
    assert run.artifact_sha256 != plain.artifact_sha256
    assert "control/onnxruntime" in [each.name for each in result]


def test_what_a_step_before_made_is_the_student_and_the_untouched_model_the_teacher(workload: Workload) -> None:
    pruned = applied(nbopt.Prune(structured=True, epochs=4, learning_rate=2e-3), workload)
    draft = applied(nbopt.Distill(epochs=2), workload, pruned)
    assert draft.model is pruned.model
    assert (draft.plan.epochs, draft.plan.learning_rate) == (4, 2e-3)
    assert draft.plan.teacher is not None
    x = workload.valid.first().inputs
    logits = workload.framework.predict(workload.model, x)
    np.testing.assert_allclose(
        np.exp(draft.plan.teacher.outputs(x)), np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), rtol=1e-3
    )


def test_alone_it_narrows_the_model_which_inherits_its_weights(workload: Workload) -> None:
    draft = applied(nbopt.Distill(width=0.25), workload)
    assert draft.model[0].out_features == workload.model[0].out_features // 4
    rows = {row.numpy().tobytes() for row in workload.model[0].weight.detach()}
    assert all(row.numpy().tobytes() in rows for row in draft.model[0].weight.detach())


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.inner(x))


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.blocks = nn.ModuleList(Residual(16) for _ in range(6))
        self.last = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_blocks_are_left_out(digits: Digits, workload: Workload) -> None:
    deep = Deep().eval()
    work = Workload(deep, train=digits.train, valid=digits.valid)
    draft = applied(nbopt.Distill(depth=0.34), work)
    assert len(draft.model.blocks) == 2
    assert len(deep.blocks) == 6
    assert torch.equal(draft.model.blocks[1].inner.weight, deep.blocks[5].inner.weight)
    assert draft.model.first.out_features == 16
    assert "left out: 4 of 6 blocks of blocks" in draft.notes
    with pytest.raises(ModelError, match="stack of blocks"):
        applied(nbopt.Distill(depth=0.5), workload)
    with pytest.raises(OptionError, match="at least one of 6 blocks") as caught:
        applied(nbopt.Distill(depth=0.95), work)
    assert caught.value.do == "--depth 0.83"
    assert len(applied(nbopt.Distill(depth=0.83), work).model.blocks) == 5


def test_a_width_at_which_nothing_goes_is_refused(workload: Workload) -> None:
    with pytest.raises(ModelError, match="which is none") as caught:
        applied(nbopt.Distill(width=0.999), workload)
    assert "another --width" in caught.value.do


def test_a_student_of_the_users_own_is_copied_and_must_fit(workload: Workload, digits: Digits) -> None:
    student = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)).eval()
    draft = applied(nbopt.Distill(student=student), workload)
    assert draft.model is not student
    assert torch.equal(draft.model[0].weight, student[0].weight)
    for wrong, words in (
        (nn.Linear(64, 3), r"\(rows, 10\)"),
        (nn.Linear(32, 10), "takes the inputs"),
        (nn.Sequential(nn.Linear(64, 10), nn.Softmax(-1)), "let both end alike"),
        (3, "a student of torch"),
    ):
        with pytest.raises(ModelError, match=words):
            applied(nbopt.Distill(student=wrong), workload)
    for wrong, words in (
        (nn.Linear(64, 3).eval(), "teacher whose outputs"),
        (nn.Linear(32, 10).eval(), "teacher that takes the inputs"),
        (3, "teachers of torch"),
    ):
        with pytest.raises(ModelError, match=words):
            applied(nbopt.Distill(teacher=wrong), workload)


def test_a_worse_teacher_is_told_with_the_figures(workload: Workload, digits: Digits) -> None:
    torch.manual_seed(3)
    untrained = mlp().eval()
    draft = applied(nbopt.Distill(teacher=untrained), workload)
    (told,) = [note for note in draft.notes if "worse than the bound model" in note]
    assert "against 0.9" in told
    assert not any("worse" in note for note in applied(nbopt.Distill(), workload).notes)
    # The student that is given may be the better one, of whatever teacher.
    work = Workload(untrained, train=digits.train, valid=digits.valid)
    draft = applied(nbopt.Distill(student=workload.model), work)
    (told,) = [note for note in draft.notes if "worse than the student before it learns" in note]
    scores = [Context(work).score(model) for model in (untrained, workload.model)]
    assert "accuracy {:.4f} against {:.4f} on valid".format(*scores) in told


@pytest.mark.parametrize(
    ("loss", "targets"),
    [(nn.BCEWithLogitsLoss(), np.eye(3)[np.arange(60) % 3]), (nn.MSELoss(), np.eye(3)[np.arange(60) % 3])],
)
def test_what_a_teachers_output_means_is_what_the_loss_says(loss: Any, targets: np.ndarray) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), targets.astype(np.float32)
    torch.manual_seed(0)
    work = Workload(nn.Linear(4, 3).eval(), train=(x, y), valid=(x, y), loss=loss)
    teacher = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
    draft = applied(nbopt.Distill(teacher=teacher, student=nn.Linear(4, 3).eval(), epochs=1), work)
    said = draft.plan.teacher.outputs((x,))
    np.testing.assert_allclose(said, teacher(torch.from_numpy(x)).detach(), atol=1e-5)
    if work.output != "regression":
        sure = nn.Sequential(teacher, nn.Sigmoid()).eval()
        found = applied(nbopt.Distill(teacher=sure, student=nn.Linear(4, 3).eval(), epochs=1), work)
        np.testing.assert_allclose(found.plan.teacher.outputs((x,)), said, atol=1e-3)
        with pytest.raises(ModelError, match="whose output is probabilities"):
            applied(nbopt.Distill(teacher=nn.Sequential(teacher, nn.Softmax(-1)).eval()), work)


class Ending(nn.Module):
    def __init__(self, end: Any) -> None:
        super().__init__()
        self.only, self.end = nn.Linear(64, 10), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.only(x), -1)


def test_a_student_that_ends_otherwise_is_refused_though_no_layer_says_so(workload: Workload, digits: Digits) -> None:
    with pytest.raises(ModelError, match="let both end alike"):
        applied(nbopt.Distill(student=Ending(torch.softmax).eval()), workload)
    assert applied(nbopt.Distill(student=Ending(torch.log_softmax).eval()), workload).plan.teacher is not None
    sure = Workload(Ending(torch.softmax).eval(), train=digits.train, valid=digits.valid)
    with pytest.raises(ModelError, match="whose output is logits"):
        applied(nbopt.Distill(student=nn.Linear(64, 10).eval()), sure)


def test_several_teachers_teach_together(workload: Workload, digits: Digits) -> None:
    torch.manual_seed(5)
    other = train(mlp(), *digits.train)
    softmax = nn.Sequential(copy.deepcopy(other), nn.Softmax(-1)).eval()
    draft = applied(nbopt.Distill(teacher=(workload.model, softmax)), workload)
    assert any("2 teachers (Sequential)" in note for note in draft.notes)
    x = workload.valid.first().inputs
    both = [torch.softmax(torch.from_numpy(workload.framework.predict(m, x)), -1) for m in (workload.model, other)]
    np.testing.assert_allclose(np.exp(draft.plan.teacher.outputs(x)), (both[0] + both[1]) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (nbopt.Distill(hints=("0", "fc9")), "layers of the teacher"),
        (nbopt.Distill(hints=("0=fc9",)), "layers of the student"),
        (nbopt.Distill(alpha=0.0, hints=("0",)), "teacher for --hints"),
        (nbopt.Distill(beta=2.0), "--method decoupled"),
        (nbopt.Distill(student="simple", width=0.3), "--student narrow"),
        (nbopt.Distill(hint_weight=2.0), "--hints for"),
    ],
)
def test_options_that_would_not_do_what_they_say_are_refused(workload: Workload, step: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        applied(step, workload)


def test_without_train_data_there_is_nothing_to_learn_from(trained_mlp: Any, digits: Digits) -> None:
    with pytest.raises(DataError, match="train"):
        applied(nbopt.Distill(), Workload(trained_mlp, valid=digits.valid))


def test_hint_layers_are_those_that_are_called_and_give_a_row_for_each_row(digits: Digits) -> None:
    work = Workload(Deep().eval(), train=digits.train, valid=digits.valid)
    with pytest.raises(OptionError, match="are called") as caught:
        applied(nbopt.Distill(hints=("blocks",)), work)
    assert "did you mean 'blocks." in caught.value.do
    draft = applied(nbopt.Distill(hints=("blocks.0", "blocks.5=blocks.1"), depth=0.34), work)
    assert draft.plan.teacher is not None
    assert draft.plan.teacher.hints == (("blocks.0", "blocks.0"), ("blocks.5", "blocks.1"))
    assert not any(module._forward_hooks for module in work.model.modules())


def test_extra_rows_must_be_inputs_and_their_labels_are_told_to_be_unused(workload: Workload, digits: Digits) -> None:
    x, y = digits.test
    draft = applied(nbopt.Distill(extra=x), workload)
    assert "rows of --extra are learned from the teacher alone" in draft.notes
    assert any(
        "labels that came with them are not used" in n for n in applied(nbopt.Distill(extra=(x, y)), workload).notes
    )
    with pytest.raises(DataError, match=r"rows of shape \(rows, 3\)"):
        applied(nbopt.Distill(extra=x[:, :3]), workload)
    with pytest.raises(DataError, match="read again"):
        applied(nbopt.Distill(extra=(batch for batch in [x])), workload)


def test_extra_rows_that_judge_too_are_told(workload: Workload, digits: Digits) -> None:
    def told(extra: Any) -> list[str]:
        return [note for note in applied(nbopt.Distill(extra=extra), workload).notes if "optimistic" in note]

    assert workload.test is not None
    mixed = np.vstack([digits.train[0], digits.test[0][:30], digits.valid[0][:20]])
    (report, select) = told(mixed)
    assert f"30 of {len(np.unique(digits.test[0], axis=0))} distinct rows of test" in report
    assert "20 of" in select
    assert "distinct rows of valid" in select
    assert not told(digits.train[0])


def test_a_student_that_diverges_is_a_failed_row_with_the_reason(digits: Digits, trained_mlp: Any) -> None:
    class Explodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.only(x) * torch.exp(10 * self.only.weight.abs().max())

    work = Workload(trained_mlp, train=digits.train, valid=digits.valid)
    step = nbopt.Distill(student=Explodes().eval(), epochs=1, learning_rate=9.0)
    result = nbopt.optimize(work, step, runtimes=["torch"])
    run = result["distill/torch"]
    assert run.failed
    assert "training diverged" in run.reason
    assert not result["baseline/torch"].failed


def test_simple_students_that_do_not_train_are_told_each_with_its_reason(digits: Digits, trained_mlp: Any) -> None:
    def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.sum() * torch.nan

    work = Workload(trained_mlp, train=digits.train, valid=digits.valid, loss=broken)
    with pytest.raises(ModelError, match="can be trained") as caught:
        applied(nbopt.Distill(student="simple", epochs=1), work)
    assert "a linear model: " in caught.value.came
    assert "an MLP of 64 units: " in caught.value.came


def test_a_simple_student_whose_time_was_up_says_so(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "SECONDS", 0.0)
    draft = applied(nbopt.Distill(student="simple", epochs=2), workload)
    (told,) = [note for note in draft.notes if "surest of the simple students" in note]
    assert told.count("max_seconds 0 reached in epoch 1") == 2


def test_of_large_inputs_few_rows_are_held(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = choosing._rows(Context(workload))
    monkeypatch.setattr(choosing, "LOOKED_BYTES", 300 * 64 * 4)
    part = choosing._rows(Context(workload))
    assert part.rows == 512 < whole.rows
    assert len(np.unique(part.targets)) == 10


def test_the_best_simple_student_of_digits_is_chosen_and_trained_by_the_loop(digits: Digits, trained_cnn: Any) -> None:
    images = [(x.reshape(-1, 1, 8, 8), y) for x, y in (digits.train, digits.valid)]
    work = Workload(trained_cnn, train=images[0], valid=images[1])
    draft = applied(nbopt.Distill(student="simple", epochs=3), work)
    assert draft.plan.epochs == 3
    (told,) = [note for note in draft.notes if "surest of the simple students" in note]
    for title in ("a linear model", "an MLP", "a small 2-D CNN", "3 folds"):
        assert title in told


@pytest.mark.parametrize(("inputs", "outputs", "kind"), CASES)
def test_simple_students_take_the_same_inputs_and_give_the_same_outputs(
    inputs: Any, outputs: tuple[int, ...], kind: str
) -> None:
    keyed = isinstance(inputs, dict)
    named = inputs if keyed else {f"x{i}": array for i, array in enumerate(inputs)}
    leaves = [Leaf(name, str(array.dtype), (None, *array.shape[1:])) for name, array in named.items()]
    columns = columns_of(leaves, list(named.values()), 12)
    targets = np.random.default_rng(0).normal(100, 5, 12)
    made = designs(columns, keyed=keyed, outputs=outputs, kind=kind, family=family_of(kind), targets=targets)
    assert len(made) > 1
    for design in made:
        model, again = build(design, 0), build(design, 0)
        raw = framework_of(model).predict(model, inputs)
        assert raw.shape == (12, *outputs), design.word
        np.testing.assert_array_equal(raw, framework_of(again).predict(again, inputs))
        if kind == "probabilities":
            np.testing.assert_allclose(raw.sum(-1), 1, rtol=1e-5)
        if kind == "regression":
            assert 80 < raw.mean() < 120


class Table(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.table = how, nn.Parameter(torch.randn(40, 4))
        self.head = nn.Linear(8 if how != "one hot" else 80, 3)

    def forward(self, x: Any) -> Any:
        if self.how == "amounts":
            return self.head(x.float().repeat(1, 4))
        if self.how == "one hot":
            return self.head(nn.functional.one_hot(x, 40).flatten(1).float())
        found = self.table[x] if self.how == "indexed" else nn.functional.embedding(x, self.table)
        return self.head(found.flatten(1))


@pytest.mark.parametrize(("how", "size"), [("amounts", 0), ("one hot", 40), ("indexed", 40), ("functional", 40)])
def test_tables_are_found_by_what_is_called(how: str, size: int) -> None:
    model = Table(how).train()
    assert vocabulary(model, (np.array([[1, 2], [3, 4]]),)) == size
    assert model.training


def test_whole_numbers_of_a_table_are_taken_by_simple_students_for_what_they_are() -> None:
    rng = np.random.default_rng(0)
    dummies = np.eye(20, dtype=np.int64)[rng.integers(0, 20, 300)]
    x = np.hstack([1_700_000_000 + 1000 * rng.integers(0, 1000, (300, 1)), dummies])
    y = dummies.argmax(1) % 2

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(21, 2)

        def forward(self, x: Any) -> Any:
            return self.head(torch.cat([(x[:, :1] - 1_700_000_000) / 1e6, x[:, 1:]], 1).float())

    work = Workload(Scaled().eval(), train=(x[:200], y[:200]), valid=(x[200:], y[200:]))
    draft = applied(nbopt.Distill(student="simple", epochs=40, learning_rate=0.03, alpha=0.0), work)
    assert sum(p.numel() for p in draft.model.parameters()) < 3000
    assert any("a linear model 0.9" in note or "a linear model 1.0" in note for note in draft.notes)


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids: Any) -> Any:
        return self.head(self.words(ids))


def test_simple_students_are_judged_where_splits_have_lengths_of_their_own() -> None:
    rng = np.random.default_rng(0)
    (x, shorter), tags = (rng.integers(1, 50, size=(60, length)) for length in (12, 9)), lambda ids: ids % 3
    work = Workload(Tagger().eval(), train=(x, tags(x)), valid=(shorter, tags(shorter)))
    draft = applied(nbopt.Distill(student="simple", epochs=2), work)
    (told,) = [note for note in draft.notes if "surest of the simple students" in note]
    assert "failed" not in told


class Loudness(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        return self.head(torch.stack([x.mean(1), x.amax(1)], 1))


def test_rows_of_numbers_of_any_length_have_simple_students() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    (long, short) = (rng.normal(size=(80, length)).astype(np.float32) + 2 * y[:, None] for length in (30, 20))
    work = Workload(Loudness().eval(), train=(long, y), valid=(short, y))
    draft = applied(nbopt.Distill(student="simple", epochs=20), work)
    (told,) = [note for note in draft.notes if "surest of the simple students" in note]
    assert "failed" not in told
    assert framework_of(draft.model).predict(draft.model, (short,)).shape == (80, 2)


def test_two_rows_of_train_are_not_parted_further() -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    work = Workload(nn.Linear(4, 2).eval(), train=(x, np.array([0, 1])), valid=(x + 0.5, np.array([0, 1])))
    draft = applied(nbopt.Distill(student="simple", epochs=2), work)
    assert any("surest of the simple students" in note for note in draft.notes)
