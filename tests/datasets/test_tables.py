"""The tables as they are, and that what is known to tell their classes apart does so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbopt import datasets
from nbopt.datasets import Split
from nbopt.errors import MissingExtra


def test_adult_is_encoded_by_its_training_part() -> None:
    (x, y), (x_test, y_test) = datasets.adult()
    assert (x.dtype, y.dtype, x.shape[1], len(x), len(x_test)) == (np.float32, np.int64, 107, 22793, 9768)
    assert y.sum() + y_test.sum() == 7841
    assert set(np.unique(y)) == {0, 1}
    assert np.allclose(x[:, :5].mean(axis=0, dtype=float), 0, atol=1e-6)
    assert np.allclose(x[:, :5].std(axis=0, dtype=float), 1, atol=1e-6)
    # Each of the eight attributes has exactly one category.
    assert np.array_equal(np.concatenate([x, x_test])[:, 5:].sum(axis=1), np.full(32561, 8, np.float32))
    assert np.isfinite(x_test).all()


@pytest.mark.parametrize("load", [datasets.adult, datasets.shuttle, datasets.letter, datasets.coil])
def test_a_table_splits_by_its_seed(load: Callable[..., tuple[Split, Split]]) -> None:
    (x, y), (x_test, y_test) = load(seed=1)
    (again, _), _ = load(seed=1)
    (other, _), _ = load(seed=2)
    assert np.array_equal(x, again)
    assert not np.array_equal(x, other)
    assert len(x_test) / (len(x) + len(x_test)) == pytest.approx(0.3, abs=1e-3)
    assert (len(x), len(x_test)) == (len(y), len(y_test))


@pytest.mark.parametrize(
    ("load", "shape", "test_rows", "counts", "test_counts"),
    [
        (datasets.shuttle, (40600, 9), 17400, [40429, 171], [17327, 73]),
        (datasets.letter, (14000, 16), 6000, [552, 536, 515], [237, 230, 221]),
        (datasets.coil, (6875, 132), 2947, [6465, 410], [2771, 176]),
    ],
)
def test_a_table_is_whole_and_each_class_is_in_both_parts(
    load: Callable[[], tuple[Split, Split]],
    shape: tuple[int, int],
    test_rows: int,
    counts: list[int],
    test_counts: list[int],
) -> None:
    (x, y), (x_test, y_test) = load()
    assert (x.shape, x.dtype, y.dtype, len(x_test)) == (shape, np.float32, np.int64, test_rows)
    assert np.bincount(y)[:3].tolist() == counts
    assert np.bincount(y_test)[:3].tolist() == test_counts
    assert np.isfinite(x).all()
    assert np.isfinite(x_test).all()


def test_letters_are_26_and_standardized() -> None:
    (x, y), _ = datasets.letter()
    assert set(np.unique(y)) == set(range(26))
    assert np.allclose(x.mean(axis=0, dtype=float), 0, atol=1e-6)
    assert np.allclose(x.std(axis=0, dtype=float), 1, atol=1e-5)


def test_the_sorts_of_household_are_one_hot() -> None:
    (x, _), (x_test, _) = datasets.coil()
    sorts = np.concatenate([x, x_test])[:, 83:]
    assert sorts.shape[1] == 49
    assert np.array_equal(sorts.sum(axis=1), np.full(9822, 2, np.float32))


def auc(model: Any, load: Callable[[], tuple[Split, Split]]) -> float:
    from sklearn.metrics import roc_auc_score

    (x, y), (x_test, y_test) = load()
    return float(roc_auc_score(y_test, model.fit(x, y).predict_proba(x_test)[:, 1]))


def test_shuttle_is_hard_for_a_linear_model_and_easy_for_a_forest() -> None:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    assert auc(LogisticRegression(max_iter=300), datasets.shuttle) < 0.9
    assert auc(RandomForestClassifier(20, random_state=0), datasets.shuttle) > 0.97


def test_coil_tells_something_of_its_label_and_not_everything() -> None:
    from sklearn.linear_model import LogisticRegression

    assert 0.65 < auc(LogisticRegression(C=0.01, max_iter=300), datasets.coil) < 0.8


def test_letters_lie_beside_their_measures() -> None:
    from sklearn.linear_model import RidgeClassifier

    (x, y), (x_test, y_test) = datasets.letter()
    # Chance is 4%; logistic regression reaches 77%, and ridge regression less.
    assert RidgeClassifier().fit(x, y).score(x_test, y_test) > 0.5


@pytest.mark.parametrize("load", [datasets.shuttle, datasets.letter, datasets.coil])
def test_without_its_reader_nothing_is_fetched(
    load: Callable[[], object], empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(MissingExtra, match=r"rdata, for reading .*\n.*\ndo: pip install \"nbopt\[bench\]\""):
        load()
    assert not empty_cache.exists()
