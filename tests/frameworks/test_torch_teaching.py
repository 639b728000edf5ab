"""A torch module that learns from a teacher in the one training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nbopt.data import Split
from nbopt.frameworks import Fitting, framework_of
from nbopt.frameworks._torch_teaching import hint_loss, soft_loss
from nbopt.teaching import Teacher, normal_form
from nbopt.training import TrainingPlan
from tests.conftest import Digits
from tests.frameworks.teaching import expected
from tests.models import mlp
from tests.test_teaching import KINDS, raw_of


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_soft_loss_is_that_of_the_paper(kind: str, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    student, taught = raw_of(kind, rng), normal_form(raw_of(kind, rng), kind)
    weight = rng.uniform(0.1, 2, len(student)).astype(np.float32) if weighted else None
    for method in ("kl", "decoupled") if kind in ("logits", "probabilities") else ("kl",):
        teacher = Teacher(lambda inputs: inputs, kind, temperature=3.0, method=method)
        value = soft_loss(
            teacher,
            torch.from_numpy(student),
            torch.from_numpy(taught),
            torch.zeros(len(student), dtype=torch.int64),
            None if weight is None else torch.from_numpy(weight),
        )
        assert value.item() == pytest.approx(expected(teacher, student, taught, weight), rel=1e-3, abs=1e-5)


def test_padding_teaches_nothing_and_classes_may_come_second() -> None:
    rng = np.random.default_rng(0)
    student, taught = (rng.normal(size=(2, 4, 3)).astype(np.float32) for _ in range(2))
    target = torch.tensor([[0, 1, -100, -100], [2, 0, 1, -100]])
    teacher = Teacher(lambda inputs: inputs, "logits")

    def value(given: np.ndarray, axis: int = -1) -> float:
        second = Teacher(lambda inputs: inputs, "logits", axis)
        return soft_loss(second, torch.from_numpy(given), torch.from_numpy(taught), target, None).item()

    changed = student.copy()
    changed[0, 2:] += 7
    assert value(changed) == value(student)
    assert value(np.ascontiguousarray(np.moveaxis(student, -1, 1)), 1) == pytest.approx(value(student), rel=1e-5)
    kept = target != -100
    assert value(student) == pytest.approx(expected(teacher, student[kept], taught[kept]), rel=1e-4)


def test_labels_mean_the_same_in_whatever_form_they_come() -> None:
    rng = np.random.default_rng(0)
    student, taught = (torch.from_numpy(rng.normal(size=(6, 3)).astype(np.float32)) for _ in range(2))
    teacher = Teacher(lambda inputs: inputs, "logits", method="decoupled")
    numbers = torch.tensor([0, 1, 2, 0, 1, 2])
    wanted = soft_loss(teacher, student, taught.log_softmax(-1), numbers, None).item()
    assert wanted != soft_loss(teacher, student, taught.log_softmax(-1), torch.zeros_like(numbers), None).item()
    for form in (numbers[:, None], numbers.float(), numbers[:, None].double(), torch.eye(3)[numbers]):
        assert soft_loss(teacher, student, taught.log_softmax(-1), form, None).item() == pytest.approx(wanted)


@pytest.mark.parametrize("method", ["kl", "decoupled"])
def test_a_class_that_a_model_leaves_out_is_none_to_learn(method: str) -> None:
    teacher, numbers = Teacher(lambda inputs: inputs, "logits", method=method), torch.tensor([0, 1])
    given = torch.tensor([[1.0, 2.0, -torch.inf], [0.0, 1.0, -torch.inf]], requires_grad=True)
    taught = torch.from_numpy(normal_form(np.array([[2.0, 1.0, -np.inf], [1.0, 1.0, -np.inf]]), "logits"))
    value = soft_loss(teacher, given, taught, numbers, None)
    value.backward()
    without = soft_loss(teacher, given[:, :2], taught[:, :2], numbers, None)
    assert value.item() == pytest.approx(without.item(), rel=1e-5)
    assert given.grad is not None
    assert given.grad.isfinite().all()


def test_hints_of_one_shape_are_compared_as_they_are_and_of_two_by_how_alike_rows_are() -> None:
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert hint_loss(x, x).item() == 0
    assert hint_loss(x, -x).item() > 1
    wide = torch.cat([x, x], 1)
    assert hint_loss(x, wide).item() == pytest.approx(0, abs=1e-6)
    assert hint_loss(x, wide.flip(0)).item() > 0.1


def fitted(digits: Digits, teacher: Teacher | None, epochs: int = 3) -> tuple[nn.Module, Any]:
    torch.manual_seed(1)
    student = mlp()
    framework = framework_of(student)
    x, y = digits.train
    fitting = Fitting(Split((x, y), "train"), framework.loss(student, None, "logits")[0])
    record = framework.fit(student, TrainingPlan(epochs, 5e-3, keep_best=False, teacher=teacher), fitting)
    return student, record


def outputs_of(model: nn.Module) -> Any:
    framework = framework_of(model)
    return lambda inputs: normal_form(framework.predict(model, inputs), "logits")


def test_with_the_teacher_alone_the_student_comes_to_say_what_the_teacher_says(
    trained_mlp: Any, digits: Digits
) -> None:
    state = {name: value.clone() for name, value in trained_mlp.state_dict().items()}
    x, _ = digits.valid
    theirs = trained_mlp(torch.from_numpy(x)).argmax(1)
    taught, _ = fitted(digits, Teacher(outputs_of(trained_mlp), "logits", alpha=1.0), epochs=20)
    assert (taught(torch.from_numpy(x)).argmax(1) == theirs).float().mean().item() > 0.95
    assert all(torch.equal(value, state[name]) for name, value in trained_mlp.state_dict().items())
    assert all(parameter.grad is None for parameter in trained_mlp.parameters())


def test_a_training_with_a_teacher_repeats_and_hooks_are_gone(trained_mlp: Any, digits: Digits) -> None:
    teacher = Teacher(outputs_of(trained_mlp), "logits", hints=(("0", "0"), ("2", "2")), model=trained_mlp)
    (one, first), (other, second) = (fitted(digits, teacher, 1) for _ in range(2))
    assert first.losses == second.losses
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    for model in (one, trained_mlp):
        assert all(not module._forward_hooks for module in model.modules())


def test_rows_without_labels_are_learned_from_the_teacher(trained_mlp: Any, digits: Digits) -> None:
    asked: list[int] = []

    def outputs(inputs: Any) -> Any:
        asked.append(len(inputs[0]))
        return outputs_of(trained_mlp)(inputs)

    extra = Split(digits.valid[0], "extra")
    _, record = fitted(digits, Teacher(outputs, "logits", extra=extra), 1)
    _, without = fitted(digits, Teacher(outputs_of(trained_mlp), "logits"), 1)
    assert sum(asked) > 1000 + 250
    assert record.losses != without.losses
