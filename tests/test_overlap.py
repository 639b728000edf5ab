"""Rows that splits share: found by content, counted, and put into words that fit their share."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from nbopt.batches import leaves
from nbopt.data import Split
from nbopt.frozen import freeze
from nbopt.overlap import Overlap, hash_split, overlap_of, overlaps_in, rows_apart

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = RNG.integers(0, 2, 60)
FORMS: dict[str, Any] = {
    "arrays": lambda x: (x, Y[: len(x)]),
    "float64": lambda x: (x.astype(np.float64), Y[: len(x)]),
    "a loader": lambda x: DataLoader(TensorDataset(torch.from_numpy(x), torch.arange(len(x))), 7, shuffle=True),
    "by name": lambda x: [{"pixels": part, "labels": np.zeros(len(part))} for part in np.array_split(x, 3)],
}


@pytest.mark.parametrize("form", FORMS)
def test_equal_rows_are_found_whatever_form_the_splits_have(form: str) -> None:
    train = hash_split(Split(FORMS[form](X[:40]), "train"), "float32")
    test = hash_split(Split((X[37:], Y[37:]), "test"), "float32")
    found = overlap_of("train", train, "test", test.digests)
    assert (found.pair, found.rows, found.of, found.read, found.whole) == ("train-test", 3, 23, 40, True)


@pytest.mark.parametrize("values", [(0, 256), (-3, 5), (0, 70_000)])
def test_whole_numbers_are_found_in_any_width_and_names_in_any_order(values: tuple[int, int]) -> None:
    tokens, mask = RNG.integers(*values, size=(20, 8)), RNG.integers(0, 2, (20, 8))
    labels = np.zeros(20)
    train = hash_split(Split([{"ids": tokens, "mask": mask, "labels": labels}], "train"), "float32")
    for dtype in ("int32", "uint8" if values == (0, 256) else "int64"):
        split = [{"mask": mask.astype(bool), "ids": tokens.astype(dtype), "labels": labels}]
        test = hash_split(Split(split, "test"), "float32")
        assert overlap_of("train", train, "test", test.digests).rows == len(test.digests) == 20
    frozen = freeze(Split(split, "test"))
    assert frozen.row_digests == train.digests


def test_rows_with_their_labels_are_one_number_in_any_order() -> None:
    def labelled(x: Any, y: Any, *weight: Any) -> int:
        return hash_split(Split((x, y, *weight), "train"), "float32").labelled

    order = RNG.permutation(60)
    assert labelled(X, Y) == labelled(X[order], Y[order])
    assert len({labelled(X, Y), labelled(X[1:], Y[1:]), labelled(X, 1 - Y), labelled(X, Y, np.full(60, 0.5))}) == 4


def test_augmented_rows_are_the_same_rows_whenever_they_are_read() -> None:
    def batches() -> Any:
        for part in np.array_split(X, 4):
            noise = torch.rand(part.shape).numpy() + np.random.rand(*part.shape) + random.random()  # noqa: NPY002
            yield part + noise, np.zeros(len(part))

    generator = torch.Generator()
    loader = DataLoader(TensorDataset(torch.from_numpy(X)), 7, shuffle=True, generator=generator)
    for split, limit in ((Split(batches, "train"), 1000), (Split(loader, "train"), 20)):
        before = random.random(), generator.get_state()
        first = hash_split(split, "float32", limit)
        assert first.digests == hash_split(split, "float32", limit).digests
        assert torch.equal(generator.get_state(), before[1])
        assert random.random() != before[0]


def test_a_row_that_stands_twice_counts_once() -> None:
    train = hash_split(Split((np.repeat(X[:1], 9, axis=0), Y[:9]), "train"), "float32")
    assert (len(train.digests), train.read) == (1, 9)


def test_what_is_read_in_part_is_said_to_be() -> None:
    batches = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, 60, 10)]
    part = hash_split(Split(batches, "train"), "float32", limit=20)
    assert (part.read, part.whole, len(part.digests)) == (20, False, 20)
    assert hash_split(Split(batches, "train"), "float32", limit=60).whole
    found = overlap_of("train", part, "test", hash_split(Split((X[15:], Y[15:]), "test"), "float32").digests)
    assert found.text("test").startswith(
        "at least 5 of 45 distinct rows of test (11%) stand in the first 20 rows of train"
    )
    nothing = overlap_of("train", part, "test", frozenset())
    assert nothing.text("test") == "no row of test stands in the first 20 rows of train (the rest was not read)"


@pytest.mark.parametrize(
    ("overlap", "report", "words", "optimistic"),
    [
        (Overlap("train", "test", 0, 10_000, 60_000), "test", "no row of test stands in train", False),
        (Overlap("train", "test", 1, 10_000, 60_000), "test", "(0.01%) stands in train too: too few to move", False),
        (Overlap("train", "test", 3, 10_000, 60_000), "test", "3 of 10,000 distinct rows of test (0.03%)", False),
        (Overlap("train", "test", 100, 10_000, 60_000), "test", "(1%) stand in train too: too few to move", False),
        (Overlap("train", "test", 2_000, 10_000, 60_000), "test", "quality on test is optimistic for whatever", True),
        (Overlap("train", "valid", 2_000, 10_000, 60_000), "valid", "quality on valid is optimistic", True),
        (Overlap("train", "valid", 2_000, 10_000, 60_000), "test", "valid selects was trained on in part", True),
        (
            Overlap("valid", "test", 2_000, 10_000, 60_000),
            "test",
            "optimistic for whatever was selected on valid",
            True,
        ),
    ],
)
def test_words_follow_the_share_and_what_the_splits_are_for(
    overlap: Overlap, report: str, words: str, optimistic: bool
) -> None:
    assert words in overlap.text(report)
    assert overlap.optimistic == optimistic


def test_it_comes_back_from_a_record_and_what_is_damaged_does_not() -> None:
    found = [Overlap("train", "test", 3, 100, 50, whole=False), Overlap("valid", "test", 0, 100, 20)]
    record = json.loads(json.dumps({"shared": {each.pair: each.to_dict() for each in found}}))
    assert overlaps_in(record) == found
    for damaged in (None, 3, [], {"train-test": None}, {"x": {"rows": 1, "of": 1, "read": 1}}, {"a-b": {"rows": True}}):
        assert overlaps_in({"shared": damaged}) == []
    assert overlaps_in({}) == []


def test_rows_that_report_are_left_out_until_enough_are_found() -> None:
    reporting = hash_split(Split((X[:30], Y[:30]), "test"), "float32").digests
    batches = [(X[i : i + 10], Y[i : i + 10]) for i in range(0, 60, 10)]
    rows, left_out = rows_apart(Split(batches, "train"), 15, "float32", reporting)
    assert left_out == 30
    np.testing.assert_array_equal(np.concatenate([leaves(row.inputs)[0] for row in rows]), X[30:50])
    none, seen = rows_apart(Split(batches, "train"), 15, "float32", reporting, limit=20)
    assert (none, seen) == ([], 20)
