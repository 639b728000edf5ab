"""Losses of torchdistill, which has a folder of its own: constraints/torchdistill.txt."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import nbopt
from nbopt.draft import Context, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.fitting import train as train_draft
from nbopt.frameworks._torch_teaching import Lessons, soft_loss
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import mlp

FOLDER = Path(sys.prefix) / "torchdistill"
OUTPUTS = (".", "output", ".", "output")


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not FOLDER.exists() and "CI" not in os.environ:
        pytest.skip("make .venv/.installed-torchdistill")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("torchdistill.losses.mid_level")


def applied(step: Any, work: Workload) -> Draft:
    return step.apply(Draft(work.model), Context(work))


def lessons(draft: Draft, stack: ExitStack) -> Lessons:
    assert draft.plan.teacher is not None
    return Lessons(draft.plan.teacher, draft.plan, draft.model, stack)


def test_a_loss_of_torchdistill_is_what_is_trained_by(losses: Any, workload: Workload) -> None:
    plain = applied(nbopt.Distill(width=0.5, temperature=3.0), workload)
    draft = applied(nbopt.Distill(width=0.5, loss=losses.KDLoss(*OUTPUTS, temperature=3.0, alpha=0)), workload)
    assert draft.plan.teacher is not None
    assert plain.plan.teacher is not None
    assert draft.plan.teacher.reads == ((), ())
    batch = workload.select_rows.batches()
    inputs = next(batch)
    output = draft.model(torch.from_numpy(np.asarray(inputs[0])))
    target = torch.zeros(len(output), dtype=torch.long)
    with ExitStack() as stack:
        own = lessons(draft, stack)._soft(output, inputs, target, None).detach()
    taught = torch.from_numpy(workload.framework.predict(workload.model, inputs))
    # Theirs is without the square of the temperature, which is for the user to weigh it by.
    ours = soft_loss(plain.plan.teacher, output.detach(), torch.log_softmax(taught, -1), target, None)
    assert float(own * 9) == pytest.approx(float(ours), rel=1e-4)


def test_layers_that_a_loss_reads_are_found_by_themselves(losses: Any, workload: Workload) -> None:
    before = [p.clone() for p in workload.model.parameters()]
    loss = losses.SPKDLoss("1", "1", reduction="batchmean")
    step = nbopt.Distill(student=mlp(hidden=24), loss=lambda *given: 1e5 * loss(*given), epochs=10, learning_rate=1e-2)
    draft = applied(step, workload)
    assert draft.plan.teacher is not None
    assert draft.plan.teacher.reads == (("1",), ("1",))
    inputs = next(workload.select_rows.batches())

    def apart(model: nn.Module) -> float:
        x = torch.from_numpy(np.asarray(inputs[0]))
        with torch.no_grad():
            own, theirs = model[:2](x), workload.model[:2](x)  # type: ignore[index]
            return float(loss({"1": {"output": own}}, {"1": {"output": theirs}}))

    first = apart(draft.model)
    trained, _ = train_draft(draft, Context(workload), 0)
    assert apart(trained.model) < 0.5 * first
    assert all(torch.equal(p, q) for p, q in zip(before, workload.model.parameters(), strict=True))
    assert not any(module._forward_hooks for module in (*workload.model.modules(), *trained.model.modules()))


@pytest.mark.parametrize("word", ["DISTLoss", "LogitStdKDLoss"])
def test_a_student_learns_by_it_from_rows_without_labels_too(
    losses: Any, word: str, workload: Workload, digits: Digits
) -> None:
    options = {"temperature": 2.0, "alpha": 0} if word == "LogitStdKDLoss" else {}
    loss = getattr(losses, word)(*OUTPUTS, **options)
    x, y = digits.train
    work = Workload(workload.model, train=(x[:200], y[:200]), valid=digits.valid, metric="accuracy")
    step = nbopt.Distill(student=mlp(hidden=24), loss=loss, extra=x[200:600], epochs=30, learning_rate=2e-2)
    draft = applied(step, work)
    trained, _ = train_draft(draft, Context(work), 0)
    assert Context(work).score(trained.model) > 0.8
    (plain,) = step.beside()
    assert "--loss" not in plain.text()
    assert f"--loss {{{word}}}" in step.text()


def test_a_function_of_its_form_is_a_loss_too(workload: Workload) -> None:
    def apart(student: Any, teacher: Any, target: Any) -> torch.Tensor:
        assert target is not None
        return (student["0"]["input"] - teacher["0"]["input"]).abs().max() + student["."]["output"].square().mean()

    draft = applied(nbopt.Distill(loss=apart), workload)
    assert draft.plan.teacher is not None
    assert draft.plan.teacher.reads == (("0",), ("0",))


def test_under_mixed_precision_a_loss_reads_float32(workload: Workload) -> None:
    seen = set()

    def close(student: Any, teacher: Any, _: Any) -> torch.Tensor:
        seen.update(each[where]["output"].dtype for each in (student, teacher) for where in ("1", "."))
        return (student["1"]["output"].mean() - teacher["1"]["output"].mean()).square()

    draft = applied(nbopt.Distill(loss=close, epochs=1), workload)
    halves = draft.with_(plan=draft.plan.adjusted(precision="bfloat16"))
    train_draft(halves, Context(workload), 0)
    assert seen == {torch.float32}


class Weighed(nn.Module):
    """A loss with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(10, 10)

    def forward(self, student: Any, teacher: Any, target: Any) -> torch.Tensor:
        return (self.line(student["."]["output"]) - teacher["."]["output"]).square().mean()


def apart(student: Any, teacher: Any, _: Any) -> torch.Tensor:
    return (student["0"]["output"] - teacher["0"]["output"]).square().mean()


@pytest.mark.parametrize(
    ("step", "kind", "words"),
    [
        (nbopt.Distill(loss=Weighed()), OptionError, "without weights of its own(.|\n)*110"),
        (nbopt.Distill(loss=lambda s, t, _: s["fc"]["output"].mean()), OptionError, "layers of the student(.|\n)*'fc'"),
        (nbopt.Distill(loss=lambda s, t, _: t["9"]["output"].mean()), OptionError, "layers of the teacher(.|\n)*'9'"),
        (nbopt.Distill(loss=apart, width=0.5), ModelError, "outputs of these layers of student and teacher: 0; 0"),
        (nbopt.Distill(loss=lambda s, t, _: s["."]["output"]), ModelError, "one number"),
        (nbopt.Distill(loss=apart, method="decoupled"), OptionError, "--method decoupled"),
        (nbopt.Distill(loss=apart, temperature=2.0), OptionError, "temperature in --loss"),
        (nbopt.Distill(loss=apart, alpha=0.0), OptionError, "teacher for --loss"),
        (nbopt.Distill(loss=apart, student="simple"), OptionError, "--loss with one student"),
    ],
)
def test_a_loss_that_can_not_be_is_refused_with_what_it_reads(
    workload: Workload, step: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        applied(step, workload)


def test_a_loss_is_a_function() -> None:
    with pytest.raises(OptionError, match="loss of torchdistill"):
        nbopt.Distill(loss="DISTLoss")
