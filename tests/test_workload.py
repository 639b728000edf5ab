"""A workload binds model, data and metric, tells what it inferred, and touches nothing of the user's."""

from __future__ import annotations

import random
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nbopt.batches import leaves
from nbopt.errors import DataError, ModelError, NbOptWarning
from nbopt.measurement.metrics import metric_of
from nbopt.own_metric import greater_is_better
from nbopt.workload import Workload, is_random
from tests import models
from tests.conftest import Digits

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 6)).astype(np.float32), RNG.integers(0, 3, 40)


def small() -> nn.Module:
    torch.manual_seed(0)
    return models.mlp(6, 3, 8)


def test_the_card_tells_what_is_bound_and_inferred(trained_mlp: Any, digits: Digits) -> None:
    work = Workload(trained_mlp, train=digits.train, valid=digits.valid, test=digits.test)
    card = dict(work.describe())
    assert card["model"] == "Sequential (torch, cpu), 4,810 parameters"
    assert card["inputs"] == "input_0 (n, 64) float32"
    assert "logits" in card["output"]
    assert "cross-entropy" in card["loss"]
    assert card["metric"] == "accuracy on test, 547 rows"
    assert "none" in card["shared rows"]
    assert all(f"{key} " in repr(work) for key in card)


def test_without_test_data_the_card_says_that_valid_reports() -> None:
    work = Workload(small(), valid=(X, Y))
    assert work.report is work.select is work.valid
    notes = [text for key, text in work.describe() if key == "note"]
    assert any("reported on valid" in note for note in notes)


def test_test_reports_and_valid_selects() -> None:
    work = Workload(small(), valid=(X, Y), test=(X[:10], Y[:10]))
    assert work.report is work.test
    assert work.select is work.valid
    assert work.report_rows.rows == 10
    assert work.select_rows.rows == 40


def test_rows_that_splits_share_are_counted_by_content_and_on_the_card() -> None:
    x = RNG.normal(size=(2000, 6)).astype(np.float32)
    y = np.zeros(2000, np.int64)
    splits = {"train": (x[:1000], y[:1000]), "valid": (x[995:1400], y[995:1400]), "test": (x[1398:], y[1398:])}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        work = Workload(small(), **splits)
        assert work.shared == {"train-test": 0, "train-valid": 5, "valid-test": 2}
    assert work.shared_rows == 0
    told = [text for key, text in work.describe() if key == "shared rows"]
    assert len(told) == 2
    assert told[0].startswith("5 of 405 distinct rows of valid (1.2%) stand in train too")
    words = "2 of 602 distinct rows of test (0.33%) stand in valid too"
    assert told[1] == f"{words}: too few to move quality on test by more than a point"
    # What was frozen already is not read a second time.
    other = Workload(small(), **splits)
    assert other.select_rows.rows == 405
    assert other.shared == work.shared


def test_many_shared_rows_are_a_warning() -> None:
    work = Workload(small(), train=(X[:25], Y[:25]), valid=(X[20:], Y[20:]))
    with pytest.warns(NbOptWarning, match="quality on valid is optimistic"):
        assert work.shared_rows == 5
    assert work.shared == {"train-valid": 5}
    words = dict(work.describe())["warning"]
    assert words.startswith("5 of 20 distinct rows of valid (25%) stand in train too")


def test_each_split_is_read_once_to_find_shared_rows() -> None:
    passes = {"train": 0, "valid": 0, "test": 0}

    def reading(name: str, x: Any) -> Any:
        def batches() -> Any:
            passes[name] += 1
            yield x, np.zeros(len(x), np.int64)

        return batches

    splits = {"train": reading("train", X[:20]), "valid": reading("valid", X[20:30]), "test": reading("test", X[30:])}
    work = Workload(small(), **splits)
    first = dict(passes)
    for _ in range(2):
        work.describe()
        assert work.shared["valid-test"] == 0
        assert work.shared_rows == 0
    # The reporting rows are frozen by that one pass, and hashed by it.
    assert {name: passes[name] - first[name] for name in passes} == {"train": 1, "valid": 1, "test": 1}


def test_without_train_only_valid_and_test_are_compared() -> None:
    assert Workload(small(), valid=(X, Y)).shared == {}
    assert Workload(small(), valid=(X[:30], Y[:30]), test=(X[30:], Y[30:])).shared == {"valid-test": 0}


def test_a_model_in_training_mode_is_measured_as_in_evaluation_and_left_so() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(NbOptWarning, match="training mode"):
        work = Workload(model, valid=(X, Y))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    first = leaves(work.report.first().inputs)[0]
    with torch.no_grad():
        expected = work.framework.clone(model)(torch.from_numpy(first))
    np.testing.assert_array_equal(work.framework.predict(model, (first,)), expected)


@pytest.mark.parametrize("own", [None, torch.Generator().manual_seed(5)])
def test_binding_and_reading_leave_the_users_random_state_alone(own: torch.Generator | None) -> None:
    rows = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = DataLoader(rows, batch_size=8, shuffle=True, generator=own)
    drawn = None if own is None else own.get_state()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the user's own state is what is looked at
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    work = Workload(small_without_seed(), train=loader, valid=(X + 1, Y))
    work.describe()
    work.calibration(8, np.random.default_rng(0))
    after = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert own is None or torch.equal(drawn, own.get_state())


def small_without_seed() -> nn.Module:
    state = torch.get_rng_state()
    model = models.mlp(6, 3, 8)
    torch.set_rng_state(state)
    return model


def test_the_digest_follows_weights_rows_and_metric() -> None:
    def digest(model: nn.Module, x: Any = X, metric: Any = None) -> str:
        return Workload(model, valid=(x, Y), metric=metric).digest

    same = digest(small())
    assert same == digest(small())
    assert len({same, digest(models.mlp(6, 3, 8)), digest(small(), X + 1), digest(small(), metric="f1")}) == 4


def test_the_digest_follows_a_model_that_is_trained_on_after_binding() -> None:
    model = small()
    work = Workload(model, valid=(X, Y))
    before = work.digest
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert work.digest != before


def test_two_metrics_of_one_name_are_two_workloads() -> None:
    first = Workload(small(), valid=(X, Y), metric=lambda y, s: float((y == s.argmax(-1)).mean()))
    second = Workload(small(), valid=(X, Y), metric=lambda y, s: float((y != s.argmax(-1)).mean()))
    assert first.metric_name == second.metric_name == "<lambda>"
    assert first.digest != second.digest


def right_above(y: Any, s: Any, *, at: float = 0.5) -> float:
    return float(((s[:, 1] > at) == y).mean())


class RightAbove:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, y: Any, s: Any) -> float:
        return right_above(y, s, at=self.at)


def made(at: float) -> Any:
    def right(y: Any, s: Any) -> float:
        return right_above(y, s, at=at)

    return right


def defaulted(at: float) -> Any:
    return lambda y, s, at=at: right_above(y, s, at=at)


@pytest.mark.parametrize("form", [lambda at: partial(right_above, at=at), RightAbove, made, defaulted])
def test_a_metric_is_known_by_what_it_carries_too(form: Any) -> None:
    key = {at: Workload(small(), valid=(X, Y), metric=form(at)).digest for at in (0.3, 0.7)}
    assert key[0.3] != key[0.7]
    assert key[0.3] == Workload(small(), valid=(X, Y), metric=form(0.3)).digest


def test_a_metric_has_one_key_in_every_process(run_python: Any) -> None:
    script = """
        import functools, sys
        import numpy as np
        from nbopt.own_metric import content_of
        def metric(y, s, names=frozenset("abcdefgh"), table=np.arange(3), **more):
            return 0.0 if s in {"one", "two", "three", "four"} else 1.0
        print(content_of(functools.partial(metric, known={"x", "y", "z"}, other=object())))
    """
    keys = [run_python(script).communicate()[0].strip() for _ in range(3)]
    assert len(keys[0]) == 64
    assert len(set(keys)) == 1


def test_a_metric_has_one_name_and_the_direction_that_it_says() -> None:
    pinball = partial(mean_pinball_loss, alpha=0.9)
    assert not greater_is_better(pinball)
    assert metric_of(pinball, output="regression").name == "mean_pinball_loss"
    work = Workload(small(), valid=(X, Y), metric=RightAbove(0.5))
    assert work.metric_name == metric_of(work.metric, output=work.output).name == "RightAbove"
    assert greater_is_better(RightAbove(0.5))

    class MeanSquaredError(RightAbove):
        pass

    assert not greater_is_better(MeanSquaredError(0.5))


def test_calibration_draws_from_train_and_never_from_test() -> None:
    work = Workload(small(), train=(X[:20], Y[:20]), valid=(X[20:30], Y[20:30]), test=(X[30:], Y[30:]))
    rows, note = work.calibration(5, np.random.default_rng(0))
    assert note == ""
    assert [leaves(row)[0].shape for row in rows] == [(1, 6)] * 5
    train = {row.tobytes() for row in X[:20]}
    assert all(leaves(row)[0].tobytes() in train for row in rows)


def test_calibration_leaves_out_what_reports_and_says_how_much() -> None:
    work = Workload(small(), train=(X[:30], Y[:30]), valid=(X[20:], Y[20:]))
    rows, note = work.calibration(100, np.random.default_rng(0))
    assert note == "10 rows of train that stand in valid too were left out of calibration"
    assert {leaves(row)[0].tobytes() for row in rows} == {row.tobytes() for row in X[:20]}
    one = Workload(small(), train=(X[:21], Y[:21]), test=(X[20:], Y[20:])).calibration(5, np.random.default_rng(0))
    assert one[1] == "1 row of train that stands in test too was left out of calibration"


def test_calibration_where_every_row_reports_is_refused() -> None:
    work = Workload(small(), train=(X[10:], Y[10:]), valid=(X[:5], Y[:5]), test=(X, Y))
    with pytest.raises(DataError, match="30 rows, all of which stand in test too") as caught:
        work.calibration(5, np.random.default_rng(0))
    assert "--method dynamic" in caught.value.do


def test_calibration_without_train_takes_valid_and_says_so() -> None:
    rows, note = Workload(small(), valid=(X[:20], Y[:20]), test=(X[18:], Y[18:])).calibration(
        100, np.random.default_rng(0)
    )
    assert len(rows) == 18
    assert note == (
        "calibrated on valid: no train data was given; 2 rows of valid that stand in test too were left out of "
        "calibration"
    )
    with pytest.raises(DataError, match="test is never read"):
        Workload(small(), test=(X, Y)).calibration(5, np.random.default_rng(0))


def test_calibration_on_the_only_split_there_is_is_called_a_leak() -> None:
    rows, note = Workload(small(), valid=(X, Y)).calibration(15, np.random.default_rng(0))
    assert len(rows) == 15
    assert note == (
        "calibrated on 15 of the 40 rows that report: a leak, so quality is optimistic; other rows as train avoid it"
    )


def test_a_sorted_loader_does_not_calibrate_on_one_class() -> None:
    order = np.argsort(Y)
    work = Workload(small(), train=(X[order], Y[order]), valid=(X + 1, Y))
    rows, _ = work.calibration(5, np.random.default_rng(0))
    classes = {int(Y[np.flatnonzero((leaves(row)[0][0] == X).all(1))[0]]) for row in rows}
    assert len(classes) > 1


class Scalar(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum()


class FirstRowOnly(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:1]


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> None:
        return None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Scalar(), "a single number"),
        (FirstRowOnly(), r"an output of shape \(1, 6\)"),
        (Nothing(), "a NoneType"),
        (models.mlp(7, 3), r"input.*\(40, 6\) float32.*RuntimeError"),
        (models.TwoInputs(), "TypeError"),
    ],
)
def test_a_model_that_does_not_go_with_the_data_is_told_with_shapes(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Workload(model.eval(), valid=(X, Y))


FORMS: dict[str, tuple[Any, Any, str]] = {
    "recurrent": (models.Lstm, (RNG.normal(size=(6, 5, 8)), Y[:6]), "logits"),
    "by name, with .logits": (
        models.TextEncoder,
        {"input_ids": np.ones((6, 4), np.int64), "attention_mask": np.ones((6, 4), np.int64), "labels": Y[:6]},
        "logits",
    ),
    "two inputs": (models.TwoInputs, ((X[:6], Y[:6]), Y[:6] % 2), "logits"),
    "a tuple as output": (models.TupleOutput, (RNG.normal(size=(6, 64)), Y[:6]), "logits"),
    "bytes": (lambda: nn.Sequential(models.PixelScale(), models.mlp()), (np.ones((6, 64), np.uint8), Y[:6]), "logits"),
    "half precision": (lambda: models.mlp(6, 3).half(), (X[:6], Y[:6]), "logits"),
    "double precision": (lambda: models.mlp(6, 3).double(), (X[:6], Y[:6]), "logits"),
    "bfloat16": (lambda: models.mlp(6, 3).bfloat16(), (X[:6], Y[:6]), "logits"),
    "no parameters": (lambda: nn.Softmax(-1), (X[:6, :3], Y[:6]), "probabilities"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_model_binds(form: str) -> None:
    make, data, kind = FORMS[form]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make().eval()
        work = Workload(model, valid=data)
        assert work.output == kind
        assert work.describe()
    floats = {str(leaf.dtype) for leaf in leaves(work.signature.example) if leaf.dtype.kind == "f"}
    assert floats <= {work.framework.float_dtype(model)}


def test_the_card_says_which_of_two_outputs_is_judged() -> None:
    card = Workload(models.TupleOutput().eval(), valid=(RNG.normal(size=(6, 64)), Y[:6])).describe()
    assert [value for key, value in card if key == "note" and "the first is judged" in value]
    card = Workload(models.mlp(6, 3).eval(), valid=(X, Y)).describe()
    assert not [value for _, value in card if "is judged" in value]


class Steps(nn.Module):
    """Takes rows of any number of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean(1))


def of_steps(steps: int) -> list[tuple[Any, Any]]:
    return [(RNG.normal(size=(8, steps, 3)).astype(np.float32), RNG.integers(0, 2, 8))]


@pytest.mark.parametrize("other", ["train", "valid"])
def test_an_axis_is_open_in_which_another_split_is_of_another_length(other: str) -> None:
    splits = {"train": of_steps(9), "valid": of_steps(9), "test": of_steps(9), other: of_steps(7)}
    assert Workload(Steps(), **splits).signature.leaves[0].shape == (None, None, 3)
    assert Workload(Steps(), train=of_steps(9), valid=of_steps(9)).signature.leaves[0].shape == (None, 9, 3)


def test_a_shape_that_the_model_does_not_take_opens_no_axis() -> None:
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(27, 2)).eval()
    work = Workload(fixed, train=of_steps(7), valid=of_steps(9))
    assert work.signature.leaves[0].shape == (None, 9, 3)


def test_rows_to_calibrate_on_hold_no_batch_that_they_came_in() -> None:
    batches = [(RNG.normal(size=(10, 6)).astype(np.float32), np.arange(10)) for _ in range(8)]
    work = Workload(small(), train=batches, valid=(X, Y))
    rows, _ = work.calibration(10, np.random.default_rng(0))
    assert all(leaf.base is None for row in rows for leaf in leaves(row))
    labelled, _ = work.calibration_rows(10, np.random.default_rng(0), labelled=True)
    assert all(row.targets.base is None and row.targets.shape == (1,) for row in labelled)
    every = {x.tobytes(): y for batch in batches for x, y in zip(*batch, strict=True)}
    assert [every[leaves(row.inputs)[0].tobytes()] for row in labelled] == [row.targets[0] for row in labelled]
    for row, beside in zip(rows, labelled, strict=True):
        np.testing.assert_array_equal(leaves(row)[0], leaves(beside.inputs)[0])


def test_rows_with_nan_are_left_out_of_calibration_and_told() -> None:
    x = np.where(np.arange(240).reshape(40, 6) == 13, np.nan, RNG.normal(size=(40, 6))).astype(np.float32)
    work = Workload(small(), train=(x, Y), valid=(X, Y))
    rows, note = work.calibration(40, np.random.default_rng(0))
    assert len(rows) == 39
    assert all(np.isfinite(leaves(row)[0]).all() for row in rows)
    assert "1 of the rows of train with NaN or infinity left out" in note
    with pytest.raises(DataError, match="all of 40 rows"):
        Workload(small(), train=(x * np.nan, Y), valid=(X, Y)).calibration(4, np.random.default_rng(0))


class Named(nn.Module):
    """Needs two inputs, by these names."""

    def forward(self, numbers: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return numbers * lengths[:, None]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([(X, np.ones(40), Y)], "'lengths' too, while batches were read as (x, y, weight): group several inputs"),
        ([{"numbers": X, "lengths": np.ones(40), "idx": np.arange(40), "labels": Y}], "leave 'idx' out of the batches"),
        ([{"numbers": X, "target": Y}], "what is predicted is read from 'labels' or 'label'"),
        ([({"numbers": X}, Y)], "'lengths' too, under that name"),
    ],
)
def test_inputs_that_the_model_does_not_have_or_lacks_are_told_with_what_to_do(data: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        Workload(Named(), valid=data)
    assert message in caught.value.do


class Dropping(nn.Linear):
    """Forgets that dropout is for training, as is easily done with torch.nn.functional."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(super().forward(x), 0.5)


def test_a_model_that_is_random_in_evaluation_mode_is_told() -> None:
    with pytest.warns(NbOptWarning, match=r"other outputs for the same rows(.|\n)*training=self\.training"):
        work = Workload(Dropping(6, 3).eval(), valid=(X, Y))
    assert any("every figure" in note for _, note in work.describe())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Workload(small(), valid=(X, Y))


def test_random_is_what_differs_by_more_than_rounding() -> None:
    values = RNG.normal(size=(5, 3)).astype(np.float32)
    assert not is_random(values, values * (1 + 1e-6))
    assert is_random(values, values * 1.01)
    assert not is_random(np.full((2, 2), -np.inf), np.full((2, 2), -np.inf))
    assert is_random(np.array([1, 2]), np.array([2, 1]))
    assert is_random(values, values[:3])


def test_a_model_whose_outputs_are_no_numbers_is_told_at_once() -> None:
    model = small()
    first = next(model.parameters())
    with torch.no_grad():
        first[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"NaN in 40 of 40 rows of the first valid batch(.|\n)*NaN among its weights"):
        Workload(model, valid=(X, Y))


def mean_squared_error(y_true: Any, y_score: Any) -> float:
    return float(((y_true - y_score) ** 2).mean())


def roc_auc_score(y_true: Any, y_score: Any) -> float:
    return 0.5


def test_a_users_metric_is_better_the_way_its_name_or_attribute_says() -> None:
    assert not greater_is_better(mean_squared_error)
    assert greater_is_better(roc_auc_score)
    assert greater_is_better(lambda y_true, y_score: 0.0)

    def gain_loss(y_true: Any, y_score: Any) -> float:
        return 0.0

    gain_loss.greater_is_better = True  # type: ignore[attr-defined]
    assert greater_is_better(gain_loss)
    card = dict(Workload(small(), valid=(X, Y), metric=mean_squared_error).describe())
    assert card["metric"] == "mean_squared_error (yours, less is better) on valid, 40 rows"
    assert metric_of(mean_squared_error, output="regression").greater_is_better is False
