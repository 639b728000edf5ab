"""One training for each trial; the untouched values first, and kept where nothing wins."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from nbopt.candidate import make_candidate
from nbopt.draft import Context, Draft
from nbopt.errors import DataError, StudyError, TrainingError
from nbopt.measurement.metrics import metric_of
from nbopt.progress import Progress
from nbopt.recipe import Recipe
from nbopt.runs import RunStore
from nbopt.searching import Found, searched, trained_as_found, untouched
from nbopt.searching.finalists import Finalist, winner_of
from nbopt.space import Dimension, Search
from nbopt.stage import Stage
from nbopt.studies.opening import KEY, journal_file, storage_of
from nbopt.techniques.distill import Distill
from nbopt.techniques.tune import Tune
from nbopt.training import TrainingPlan
from nbopt.workload import Workload
from tests.conftest import Digits
from tests.models import mlp
from tests.runtimes.keras_models import model as keras_model


def of_plan(name: str) -> Callable[[Draft, Any], Draft]:
    return lambda draft, value: draft.with_(plan=draft.plan.adjusted(**{name: value}))


RATE = Dimension("learning_rate", of_plan("learning_rate"), 1e-3, low=1e-5, high=0.1, log=True)
OPTIMIZER = Dimension("optimizer", of_plan("optimizer"), "adamw", choices=("adamw", "sgd"))


@pytest.fixture
def work(digits: Digits) -> Workload:
    return Workload(mlp(), train=digits.train, valid=digits.valid, name="fresh digits")


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[TrainingPlan]:
    """Record the plan of every training that the framework is asked for; each one runs."""
    from nbopt.frameworks.keras import KerasFramework
    from nbopt.frameworks.torch import TorchFramework

    plans: list[TrainingPlan] = []
    for framework in (TorchFramework, KerasFramework):

        def counted(self: Any, model: Any, plan: TrainingPlan, fitting: Any, fit: Any = framework.fit) -> Any:
            plans.append(plan)
            return fit(self, model, plan, fitting)

        monkeypatch.setattr(framework, "fit", counted)
    return plans


def search(work: Workload, tmp_path: Path, draft: Draft, seed: int = 0) -> tuple[Draft, Any, Found]:
    return searched(draft, Context(work, seed), seed, name="a search", storage=tmp_path / "studies.journal")


def draft_of(work: Workload, **changes: Any) -> Draft:
    plan = TrainingPlan(epochs=2)
    how = Search(trials=6, finalists=2, repeats=2, pruner="none", sampler="random")
    return Draft(work.model, plan, space=(RATE, OPTIMIZER), search=replace(how, **changes))


def test_one_training_for_each_trial_and_each_fresh_seed(
    work: Workload, fits: list[TrainingPlan], tmp_path: Path
) -> None:
    draft, record, found = search(work, tmp_path, draft_of(work))
    assert len(fits) == 6 + 3 * 2
    assert found.epochs == sum(plan.epochs for plan in fits) == 24
    assert (fits[0].learning_rate, fits[0].optimizer) == (1e-3, "adamw")
    assert len({plan.seed for plan in fits[6:]}) == 2
    assert not {plan.seed for plan in fits[6:]} & {plan.seed for plan in fits[:6]}
    table = found.table
    assert [row["number"] for row in table["trials"]] == list(range(6))
    assert [final["kind"] for final in table["finalists"]] == ["untouched", "finalist", "finalist"]
    best = max(table["finalists"], key=lambda final: final["mean"])
    assert table["chosen"]["values"] == best["values"] == dict(found.values)
    assert draft.plan.learning_rate == found.values["learning_rate"]
    # The model is that of the first fresh seed, and none was trained beside.
    accuracy = record.scores[record.kept_epoch]
    assert accuracy == best["scores"][0] == Context(work).score(draft.model)
    assert any("12 trainings" in note or "6 trainings" in note for note in draft.notes)


def test_what_is_given_to_try_comes_right_after_the_untouched(
    work: Workload, fits: list[TrainingPlan], tmp_path: Path
) -> None:
    first = ({"learning_rate": 0.02}, {"optimizer": "sgd"})
    search(work, tmp_path, draft_of(work, first=first, trials=4))
    tried = [(plan.learning_rate, plan.optimizer) for plan in fits[:3]]
    assert tried == [(1e-3, "adamw"), (0.02, "adamw"), (1e-3, "sgd")]


def test_the_untouched_values_are_kept_where_nothing_is_better(work: Workload, tmp_path: Path) -> None:
    harm = Dimension("learning_rate", of_plan("learning_rate"), 1e-2, low=1e-12, high=1e-2, log=True)
    draft = draft_of(work, first=({"learning_rate": 1e-11}, {"learning_rate": 1e-10}), trials=3)
    draft = draft.with_(plan=TrainingPlan(epochs=2, learning_rate=1e-2), space=(harm,))
    found_draft, _, found = search(work, tmp_path, draft)
    assert dict(found.values) == {"learning_rate": 1e-2} == untouched(draft.space)
    assert found.table["chosen"]["kind"] == "untouched"
    assert any("they are kept" in note for note in found_draft.notes)


def test_it_repeats_with_the_same_seed(work: Workload, tmp_path: Path) -> None:
    tables = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        _, _, found = search(work, tmp_path / folder, draft_of(work))
        tables.append([(row["values"], row["score"]) for row in found.table["trials"]])
    assert tables[0] == tables[1]


def test_the_study_is_an_ordinary_one_and_an_unfinished_one_goes_on(
    work: Workload, fits: list[TrainingPlan], tmp_path: Path
) -> None:
    storage = tmp_path / "studies.journal"
    calls = 0

    def interrupting(draft: Draft, value: Any) -> Draft:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return draft.with_(plan=draft.plan.adjusted(learning_rate=value))

    draft = draft_of(work).with_(space=(replace(RATE, apply=interrupting),))
    trained, record, found = search(work, tmp_path, draft)
    # Interrupted in the fourth trial: the best of three is what there is.
    assert found.interrupted
    assert any("interrupted after 4 of 6" in note for note in trained.notes)
    assert record.epochs == 2
    assert len(fits) == 3
    study = optuna.load_study(study_name="a search", storage=storage_of(storage))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3 + ["FAIL"]
    resumed, _, again = search(work, tmp_path, draft_of(work).with_(space=(RATE,)))
    assert len(again.table["trials"]) == 6
    assert again.table["study"] == "a search"
    assert any("resumed with 4 trials of an earlier run" in note for note in resumed.notes)
    _, _, third = search(work, tmp_path, draft_of(work).with_(space=(RATE,)))
    assert third.table["study"] == "a search #2"


@pytest.mark.parametrize(("begun", "rounds"), [(1, 0), (5, 1)])
def test_an_interrupt_among_the_finalists_compares_what_all_of_them_have(
    work: Workload, fits: list[TrainingPlan], tmp_path: Path, begun: int, rounds: int
) -> None:
    def stop(progress: Progress) -> None:
        if progress.what == "finalists with fresh seeds" and progress.done == begun:
            raise KeyboardInterrupt

    # The untouched rate is as good as none, and alone has the first seed where the first interrupt comes.
    slow = Dimension("learning_rate", of_plan("learning_rate"), 1e-9, low=1e-9, high=0.1, log=True)
    draft = draft_of(work, first=({"learning_rate": 0.02}, {"learning_rate": 0.01}), trials=3, repeats=3)
    draft = draft.with_(plan=TrainingPlan(epochs=2, learning_rate=1e-9), space=(slow,))
    context = Context(work, progress=stop)
    trained, _, found = searched(draft, context, 0, name="a search", storage=tmp_path / "studies.journal")
    assert found.interrupted
    assert [len(final["scores"]) for final in found.table["finalists"]] == [rounds] * (3 if rounds else 0)
    assert found.table["chosen"]["kind"] == "finalist"
    assert found.values["learning_rate"] in (0.01, 0.02)
    assert found.epochs == 2 * len(fits) == 2 * (3 + begun)
    assert not any("they are kept" in note for note in trained.notes)
    assert any("interrupted before all finalists" in note for note in trained.notes)


def test_other_data_or_another_loss_is_another_search(work: Workload, digits: Digits, tmp_path: Path) -> None:
    (x, y), (vx, vy) = digits.train, digits.valid
    recipe = Recipe.of(Tune(trials=2, epochs=1, finalists=0, only=("learning_rate",)))

    def studies(changed: Workload | None = None) -> tuple[list[str], tuple[str, ...]]:
        with Stage(changed or work, RunStore(tmp_path)) as stage:
            notes = make_candidate(stage, recipe).draft.notes
        return optuna.get_all_study_names(storage_of(journal_file(tmp_path))), notes

    def other(**changes: Any) -> Workload:
        report = {"valid": (vx, vy), "test": digits.test}
        return Workload(work.model, **{"train": (x, y), **report, "name": work.name, **changes})

    names = {*studies(other())[0]}
    mended = y.copy()
    mended[0] = (mended[0] + 1) % 10
    cases: list[dict[str, Any]] = [
        {"train": (x, mended)}, {"train": (x[1:], y[1:])}, {"valid": (vx[1:], vy[1:])},
        {"loss": torch.nn.functional.cross_entropy},
    ]  # fmt: skip
    for changes in cases:
        found, notes = studies(other(**changes))
        assert len(found) == len(names) + 1, changes
        assert not any("resumed" in note for note in notes)
        names = {*found}
    assert not any("#" in name for name in names)
    shuffled = np.random.default_rng(0).permutation(len(x))
    again = studies(other(train=(x[shuffled], y[shuffled])))[
        0
    ]  # the same rows: a search that was finished, and the next
    assert [name for name in again if "#" in name] == [f"{name} #2" for name in again if f"{name} #2" in again]
    assert len(again) == len(names) + 1


def test_another_student_of_the_same_class_is_another_search(work: Workload, tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for student in (mlp(hidden=8), mlp(hidden=12)):
        recipe = Recipe.of(Distill(student=student, epochs=1), Tune(trials=2, finalists=1, repeats=1))
        with Stage(work, store) as stage:
            make_candidate(stage, recipe)
    storage = storage_of(journal_file(tmp_path))
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    assert len({study.user_attrs[KEY] for study in studies}) == len(studies) == 2
    assert not any("#" in study.study_name for study in studies)


def test_an_interrupt_before_anything_was_trained_is_an_interrupt(work: Workload, tmp_path: Path) -> None:
    def stop(draft: Draft, seed: int) -> Draft:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(work, tmp_path, draft_of(work).with_(begin=(stop,)))


def test_one_diverging_trial_is_a_failed_trial_with_its_reason(work: Workload, tmp_path: Path) -> None:
    wide = Dimension("learning_rate", of_plan("learning_rate"), 1e-3, low=1e-4, high=1e30, log=True)
    draft = draft_of(work, first=({"learning_rate": 1e30},), trials=3).with_(space=(wide,))
    _, _, found = search(work, tmp_path, draft)
    row = found.table["trials"][1]
    assert row["state"] == "failed"
    assert "diverged" in row["reason"]
    assert np.isfinite(found.table["chosen"]["mean"])


def test_where_all_fail_it_is_the_training_that_failed(work: Workload, tmp_path: Path) -> None:
    def broken(model: Any, seed: int) -> Any:
        raise TrainingError("a model", "none", "another")

    with pytest.raises(TrainingError, match="none"):
        search(work, tmp_path, draft_of(work).with_(begin=(broken,)))


def test_what_can_not_go_to_other_processes_is_named_and_no_finding(digits: Digits, tmp_path: Path) -> None:
    class Batches:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __iter__(self) -> Any:
            yield digits.train

    work = Workload(mlp(), train=Batches(), valid=digits.valid)
    with pytest.raises(StudyError, match="train: ") as caught:
        search(work, tmp_path, draft_of(work, jobs=2))
    assert caught.value.do == "--jobs 1"


def test_only_trainings_that_diverged_are_told_to_take_another_rate(work: Workload, tmp_path: Path) -> None:
    def broken(model: Any, seed: int) -> Any:
        raise DataError("labels", "none", "give some")

    with pytest.raises(TrainingError, match="give some") as caught:
        search(work, tmp_path, draft_of(work).with_(begin=(broken,)))
    assert "--learning-rate" not in caught.value.message


def test_unpromising_trials_end_early_and_their_epochs_are_counted(
    work: Workload, fits: list[TrainingPlan], tmp_path: Path
) -> None:
    # Five good ones first: from then on the median prunes what lies below it after an epoch.
    good = tuple({"learning_rate": rate} for rate in (0.01, 0.012, 0.014, 0.016, 0.011))
    bad = tuple({"learning_rate": rate} for rate in (1.1e-5, 1.2e-5, 1.3e-5))
    draft = draft_of(work, first=good + bad, trials=9, pruner="median", finalists=0)
    draft = draft.with_(plan=TrainingPlan(epochs=4), space=(RATE,))
    _, _, found = search(work, tmp_path, draft)
    rows = found.table["trials"]
    assert [row["state"] for row in rows[6:]] == ["pruned"] * 3
    assert all(row["epochs"] < 4 for row in rows[6:])
    assert found.epochs == sum(row["epochs"] for row in rows) < 9 * 4
    assert len(fits) == 9
    assert rows[0]["state"] == "complete"


def test_without_finalists_the_best_trial_is_taken_as_it_is(
    work: Workload, fits: list[TrainingPlan], tmp_path: Path
) -> None:
    draft, record, found = search(work, tmp_path, draft_of(work, finalists=0))
    assert len(fits) == 6
    assert found.table["finalists"] == []
    assert found.table["chosen"]["found"] == max(row["score"] for row in found.table["trials"])
    assert record.scores[record.kept_epoch] == found.table["chosen"]["found"]
    assert any("chosen by one training" in note for note in draft.notes)


def test_a_random_search_beside_it_has_as_many_trials(work: Workload, fits: list[TrainingPlan], tmp_path: Path) -> None:
    draft, _, found = search(work, tmp_path, draft_of(work, vs="random", trials=5, finalists=1, repeats=1))
    assert len(fits) == 5 + 5 + 3
    assert [final["kind"] for final in found.table["finalists"]] == ["untouched", "finalist", "random"]
    assert any("random search with as many" in note for note in draft.notes)


@pytest.mark.slow
def test_trials_run_in_processes_of_their_own(work: Workload, fits: list[TrainingPlan], tmp_path: Path) -> None:
    _, record, found = search(work, tmp_path, draft_of(work, jobs=2, trials=4, finalists=1, repeats=1))
    assert len(fits) == 2  # here are only the finalists
    assert [row["state"] for row in found.table["trials"]] == ["complete"] * 4
    assert found.epochs == 4 * 2 + 2 * 2
    assert record.epochs == 2


def test_other_seeds_train_what_one_search_found(work: Workload, fits: list[TrainingPlan], tmp_path: Path) -> None:
    _, _, found = search(work, tmp_path, draft_of(work))
    fits.clear()
    draft, record = trained_as_found(draft_of(work), Context(work, 7), 7, found)
    assert len(fits) == 1
    assert fits[0].seed == 7
    assert draft.plan.learning_rate == found.values["learning_rate"]
    assert record.epochs == 2


def test_a_search_needs_labels(digits: Digits, tmp_path: Path) -> None:
    unlabelled = Workload(mlp(), train=digits.train, valid=[digits.valid[0]], test=digits.valid, name="x")
    with pytest.raises(DataError, match="labels in valid"):
        search(unlabelled, tmp_path, draft_of(unlabelled))


def test_smaller_can_be_better(digits: Digits, tmp_path: Path) -> None:
    work = Workload(mlp(), train=digits.train, valid=digits.valid, metric="log_loss", name="x")
    assert not metric_of("log_loss", output=work.output).greater_is_better
    _, _, found = search(work, tmp_path, draft_of(work))
    finals = found.table["finalists"]
    assert found.table["chosen"]["mean"] == min(final["mean"] for final in finals)


def test_equal_finalists_leave_the_untouched() -> None:
    same = [Finalist("untouched", 0, {}, 0.5, [0.5, 0.7]), Finalist("finalist", 3, {}, 0.9, [0.6, 0.6])]
    assert winner_of(same, greater=True) is same[0]
    assert winner_of([Finalist("finalist", 1, {}, 0.9, [float("nan")])], greater=True) is None


def test_keras_searches_alike(digits: Digits, fits: list[TrainingPlan], tmp_path: Path) -> None:
    work = Workload(keras_model("mlp"), train=digits.train, valid=digits.valid, name="keras digits")
    before = [weight.copy() for weight in work.model.get_weights()]
    _, record, found = search(work, tmp_path, draft_of(work, trials=3, finalists=1, repeats=1))
    assert len(fits) == 3 + 2
    assert record.epochs == 2
    assert found.epochs == 10
    for one, other in zip(before, work.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
