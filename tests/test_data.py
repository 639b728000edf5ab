"""Every batch form that the contract names is read into one, again on each pass, and frozen in one order."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from nbopt.arrays import to_numpy
from nbopt.batches import Batch, as_batch, leaves
from nbopt.data import Split, kept_randomness
from nbopt.drawing import drawn
from nbopt.errors import DataError
from nbopt.frozen import freeze, hash_rows, join_ragged, read_shard, shard_paths

X = np.arange(40, dtype=np.float32).reshape(10, 4)
Y = np.arange(10) % 3


class Indexed:
    """Batches by index, as a keras.utils.PyDataset gives them, with no IndexError at the end."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return X[2 * (index % 5) : 2 * (index % 5) + 2], Y[2 * (index % 5) : 2 * (index % 5) + 2]


def batches() -> Iterator[tuple[Any, Any]]:
    for start in range(0, 10, 4):
        yield X[start : start + 4], Y[start : start + 4]


def tf_dataset() -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)


FORMS: dict[str, Callable[[], Any]] = {
    "arrays": lambda: (X, Y),
    "tensors": lambda: (torch.from_numpy(X), torch.from_numpy(Y)),
    "labels as a list": lambda: (X, Y.tolist()),
    "rows as lists": lambda: (X.tolist(), Y.tolist()),
    "pandas": lambda: (pd.DataFrame(X), pd.Series(Y, index=range(5, 15))),
    "a dict of arrays": lambda: {"x": X, "labels": Y},
    "a DataLoader": lambda: DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=4),
    "a tf.data.Dataset": tf_dataset,
    "a list of batches": lambda: list(batches()),
    "a tuple of two batches": lambda: ((X[:5], Y[:5]), (X[5:], Y[5:])),
    "a list of two batches": lambda: [(X[:5], Y[:5]), (X[5:], Y[5:])],
    "lists as batches": lambda: [[X[:5], Y[:5]], [X[5:], Y[5:]]],
    "a list of dicts": lambda: [{"x": X[:5], "labels": Y[:5]}, {"x": X[5:], "labels": Y[5:]}],
    "a list of (dict, y)": lambda: [({"x": X[:5]}, Y[:5]), ({"x": X[5:]}, Y[5:])],
    "a function": lambda: batches,
    "batches by index": Indexed,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows_on_every_pass(form: str) -> None:
    split = Split(FORMS[form](), "train")
    for _ in range(2):
        parts = list(split)
        x = np.concatenate([to_numpy(leaves(batch.inputs)[0]) for batch in parts])
        y = np.concatenate([to_numpy(batch.targets) for batch in parts])
        np.testing.assert_array_equal(x, X)
        np.testing.assert_array_equal(y, Y)


def test_a_generator_of_keras_that_goes_on_for_ever_is_read_by_its_batches() -> None:
    import keras

    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator()
    flow = generator.flow(np.zeros((10, 8, 8, 3), np.float32), Y, batch_size=4, shuffle=False)
    split = Split(flow, "valid")
    for parts in (islice(split, 9), islice(split.training_batches(4, np.random.default_rng(0)), 9)):
        np.testing.assert_array_equal(np.concatenate([to_numpy(part.targets) for part in parts]), Y)
    assert freeze(split).rows == 10


def test_weights_several_inputs_and_inputs_alone() -> None:
    weighted = as_batch((X, Y, np.ones(10)))
    assert weighted.weight is not None
    two = as_batch(((X, X[:, :2]), Y))
    assert [leaf.shape for leaf in leaves(two.inputs)] == [(10, 4), (10, 2)]
    assert as_batch(X).targets is None
    assert as_batch((X,)).targets is None
    assert as_batch({"x": X}).targets is None
    assert list(as_batch({"x": X, "label": Y}).inputs) == ["x"]


def test_arrays_are_shuffled_for_training_by_the_generator_alone() -> None:
    split = Split((X, Y), "train")

    def order(seed: int) -> list[float]:
        parts = split.training_batches(3, np.random.default_rng(seed))
        return [row for batch in parts for row in leaves(batch.inputs)[0][:, 0].tolist()]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == X[:, 0].tolist()
    assert split.steps(4) == 3


@pytest.mark.parametrize(
    ("rows", "size", "sizes"), [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_row_that_arrays_leave_over_joins_the_last_batch(rows: int, size: int, sizes: list[int]) -> None:
    split = Split((X[:rows], Y[:rows]), "train")
    parts = list(split.training_batches(size, np.random.default_rng(0)))
    assert [part.rows for part in parts] == sizes
    assert split.steps(size) == len(sizes)
    assert sorted(to_numpy(leaves(part.inputs)[0])[i, 0] for part in parts for i in range(part.rows)) == sorted(
        X[:rows, 0].tolist()
    )


@pytest.mark.parametrize("where", ["loader", "sampler", "batch sampler"])
def test_a_loaders_own_generator_is_given_back(where: str) -> None:
    rows, own = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), torch.Generator().manual_seed(3)
    sampler = RandomSampler(rows, generator=own)
    loader = {
        "loader": lambda: DataLoader(rows, 4, shuffle=True, generator=own),
        "sampler": lambda: DataLoader(rows, 4, sampler=sampler),
        "batch sampler": lambda: DataLoader(rows, batch_sampler=BatchSampler(sampler, 4, drop_last=False)),
    }[where]()
    split = Split(loader, "train")

    def order() -> list[int]:
        return [label for batch in split for label in batch.targets.tolist()]

    orders = []
    for _ in range(2):
        with kept_randomness(split, None):
            orders.append((order(), order()))
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1], "within, each pass has an order of its own"
    with kept_randomness():
        assert order() == orders[0][0]


NAMES = np.array(["no", "yes"])


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((X, NAMES[Y % 2]), "numeric labels(.|\n)*such as 'no'(.|\n)*factorize"),
        ((X, pd.Series(NAMES[Y % 2])), "numeric labels"),
        ((X, pd.Series(NAMES[Y % 2], dtype="category")), "numeric labels"),
        ({"x": X, "label": NAMES[Y % 2].tolist()}, "numeric labels"),
        ((X, Y, tuple("abcdefghij")), "numeric row weights(.|\n)*leave names and ids out"),
        ((np.ones((40, 2)), np.ones(40), np.arange(40)), r"all different \(0, 1, 2\)"),
        ((np.ones((40, 2)), np.ones(40), torch.randperm(40)), "row numbers"),
        ((NAMES[:, None], Y[:2]), "numeric arrays"),
    ],
)
def test_what_is_no_number_is_told_with_what_it_was_to_be(item: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_batch(item)


def test_weights_are_what_rows_count() -> None:
    for weight in (np.ones(10, int), np.arange(10), np.arange(10.0), torch.rand(10)):
        assert as_batch((X, Y, weight)).weight is not None


def test_labels_and_weights_stay_with_their_rows_when_shuffled() -> None:
    split = Split((X, X[:, 0], X[:, 0]), "train")
    for batch in split.training_batches(3, np.random.default_rng(0)):
        np.testing.assert_array_equal(leaves(batch.inputs)[0][:, 0], batch.targets)
        np.testing.assert_array_equal(batch.targets, batch.weight)


def test_a_series_with_an_index_of_its_own_is_taken_by_position() -> None:
    split = Split((pd.DataFrame(X, index=range(7, 17)), pd.Series(Y, index=range(7, 17))), "train")
    first = split.first()
    np.testing.assert_array_equal(to_numpy(first.targets), Y)


@pytest.mark.parametrize(
    ("source", "came"),
    [
        (batches, "generator"),
        (lambda: iter([(X, Y)]), "list_iterator"),
        (lambda: TensorDataset(torch.from_numpy(X)), "single rows"),
        (lambda: (X[:0], Y[:0]), "yielded no batch"),
        (lambda: (X, Y[:5]), "lengths 10, 5"),
        (lambda: 7, "int"),
        (lambda: tf_dataset().repeat(), "repeats for ever"),
    ],
)
def test_what_is_no_split_is_told_at_once(source: Callable[[], Any], came: str) -> None:
    with pytest.raises(DataError, match=came):
        Split(source(), "valid")


@pytest.mark.parametrize("source", [[], lambda: iter(()), [(X[:0], Y[:0])]])
def test_a_loader_that_yields_nothing_is_told_when_it_is_read(source: Any) -> None:
    with pytest.raises(DataError, match="yielded no batch"):
        list(Split(source, "valid"))


def test_a_generator_is_not_consumed_by_the_refusal() -> None:
    source = batches()
    with pytest.raises(DataError, match="again on each pass"):
        Split(source, "valid")
    assert len(list(source)) == 3


@pytest.mark.parametrize("value", [["a", "b"], [[1, 2], [3]], np.array([object()]), np.array(["x"])])
def test_what_is_no_number_is_told(value: Any) -> None:
    with pytest.raises(DataError, match="numeric arrays"):
        to_numpy(value)


def test_bfloat16_and_gradients_come_to_numpy() -> None:
    assert to_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert to_numpy(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_freezing_keeps_order_labels_and_weights() -> None:
    frozen = freeze(Split([(X[:3], Y[:3], Y[:3]), (X[3:], Y[3:], Y[3:])], "test"))
    np.testing.assert_array_equal(np.concatenate([leaves(b)[0] for b in frozen.batches()]), X)
    np.testing.assert_array_equal(frozen.targets, Y)
    np.testing.assert_array_equal(frozen.weight, Y)
    assert frozen.rows == 10
    assert frozen.signature[0].shape == (None, 4)
    assert leaves(frozen.first_row())[0].shape == (1, 4)


def test_an_axis_that_varies_between_batches_is_free() -> None:
    frozen = freeze(Split([(np.ones((2, 5)), Y[:2]), (np.ones((2, 7)), Y[:2])], "test"))
    assert frozen.signature[0].shape == (None, None)


def test_batches_are_cut_to_shards_and_names_kept() -> None:
    x = np.ones((600, 2))
    frozen = freeze(Split({"a": x, "b": x, "labels": np.zeros(600)}, "test"))
    assert frozen.keyed
    assert [leaf.name for leaf in frozen.signature] == ["a", "b"]
    shards = [read_shard(path) for path in shard_paths(frozen.folder)]
    assert [len(leaves(shard)[0]) for shard in shards] == [256, 256, 88]
    assert all(isinstance(shard, dict) and list(shard) == ["a", "b"] for shard in shards)


def test_the_digest_sees_inputs_labels_and_weights_and_nothing_else() -> None:
    def digest(*parts: Any) -> str:
        return freeze(Split(parts, "test")).digest

    assert digest(X, Y) == digest(X.copy(), Y.copy())
    assert len({digest(X, Y), digest(X + 1, Y), digest(X, Y + 1), digest(X, Y, Y), digest(X, Y, Y + 1)}) == 5


def test_the_folder_goes_with_the_rows() -> None:
    frozen = freeze(Split((X, Y), "test"))
    folder = frozen.folder
    assert folder.is_dir()
    del frozen
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((np.where(X == 13, np.nan, X), Y), r"1 rows, first in row 3"),
        ([(X[:5], Y[:5]), (np.where(X[5:] == 33, np.inf, X[5:]), Y[5:])], r"first in row 8"),
        ((X, np.where(Y == 2, np.nan, Y)), "labels of test"),
        ([(X[:5], Y[:5]), (X[5:], None)], "some batches have none"),
        ([({"a": X}, Y), ({"b": X}, Y)], "batch 1 differs"),
        ([(X, Y), ((X, X), Y)], "batch 1 differs"),
        ([(X, Y[:3])], "3 for 10 rows"),
        ([(X, Y), (X.reshape(10, 2, 2), Y)], "one number of axes"),
        ([((X, X[:5]), Y)], "as many rows"),
    ],
)
def test_rows_that_can_not_be_used_are_named(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        freeze(Split(source, "test"))


@pytest.mark.parametrize("named", [False, True])
def test_rows_are_drawn_from_the_whole_of_a_split_with_all_that_belongs_to_them(named: bool) -> None:
    rows = np.arange(3000)
    x, y = rows[:, None].astype(np.float32), (rows > 2990).astype(np.int64)
    weight = rows.astype(np.float32)
    data = [({"x": x[at]} if named else (x[at],), y[at], weight[at]) for at in np.array_split(rows, 30)]
    frozen = freeze(Split(data, "valid"))
    few = drawn(frozen, 600, np.random.default_rng(0))
    parts = [leaves(inputs)[0][:, 0] for inputs in few.batches()]
    came = np.concatenate(parts)
    assert few.rows == len(came) == len(np.unique(came))
    assert 600 <= few.rows <= 602
    assert few.targets is not None
    np.testing.assert_array_equal(few.targets, came > 2990)
    np.testing.assert_array_equal(few.weight, came)
    assert few.targets.sum() >= 1
    assert 1200 < came.mean() < 1800
    assert max(map(len, parts)) >= 256
    assert drawn(frozen, 3000, np.random.default_rng(0)) is frozen
    folder = few.folder
    del few
    gc.collect()
    assert not folder.exists()
    assert frozen.folder.exists()


def test_nothing_is_left_over_when_freezing_fails(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DataError):
        freeze(Split((np.full((3, 2), np.nan), np.zeros(3)), "test"))
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_rows_as_arrays_is_told_how_it_becomes_one() -> None:
    with pytest.raises(DataError, match=r"10 inputs, with lengths 4, 4, 4, 4, 4, 4 and more") as caught:
        Split((list(X), Y), "valid")
    assert "np.stack(x)" in caught.value.do
    with pytest.raises(DataError, match="lengths 10, 3"):
        Split((X, Y[:3]), "valid")


@settings(max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_ragged_parts_join_with_the_ignored_label(widths: list[int], rows: int) -> None:
    parts = [np.full((rows, width), width) for width in widths]
    joined = join_ragged(parts, -100)
    assert isinstance(joined, np.ma.MaskedArray) == (len(set(widths)) > 1)
    assert joined.shape == (rows * len(widths), max(widths))
    for index, width in enumerate(widths):
        block = joined[index * rows : (index + 1) * rows]
        assert (block[:, :width] == width).all()
        assert (np.asarray(block[:, width:]) == -100).all()
        assert np.ma.getmaskarray(block[:, width:]).all()
        assert not np.ma.getmaskarray(block[:, :width]).any()


@pytest.mark.parametrize("width", [3, 4])
def test_what_is_padding_in_a_part_is_so_in_the_whole(width: int) -> None:
    part = join_ragged([np.ones((2, 1)), np.ones((2, 3))], -100)
    joined = join_ragged([part, np.ones((1, width))], -100)
    assert np.ma.getmaskarray(joined).sum() == 2 * (width - 1) + 2 * (width - 3)
    assert joined.sum() == 8 + width


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.float32])
def test_labels_and_weights_of_batches_of_different_lengths_are_known_from_their_padding(dtype: Any) -> None:
    shapes = [(3, 2), (2, 4)]
    data = [(np.zeros((*shape, 5), np.float32), np.ones(shape, dtype), np.full(shape, 0.5)) for shape in shapes]
    frozen = freeze(Split(data, "test"))
    assert frozen.targets is not None
    assert frozen.weight is not None
    assert np.asarray(frozen.targets)[:, 2:].tolist() == [[-100] * 2] * 3 + [[1] * 2] * 2
    assert np.asarray(frozen.weight)[:, 2:].tolist() == [[0] * 2] * 3 + [[0.5] * 2] * 2
    for part in (frozen.targets, frozen.weight):
        assert np.ma.getmaskarray(part).sum() == 6


@pytest.mark.parametrize("parts", [[np.zeros((4, 3)), np.zeros(3)], [np.zeros(4), np.array(1.0)], [np.array(1.0)]])
def test_parts_that_lost_an_axis_are_told(parts: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match="same number of axes"):
        join_ragged(parts)


def test_rows_are_hashed_over_all_inputs() -> None:
    assert len(hash_rows([X, np.zeros((10, 1))])) == 10
    assert len(hash_rows([np.zeros((10, 1)), np.zeros((10, 2))])) == 1
    assert hash_rows([X]) & hash_rows([X[3:4]])


def test_a_batch_keeps_the_users_tensors() -> None:
    x = torch.ones(2, 3)
    assert leaves(Batch((x,)).inputs)[0] is x
    assert leaves(as_batch((x, torch.zeros(2))).inputs)[0] is x


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ((X, {"cls": Y, "reg": Y}), "cls, reg"),
        ((X, [Y, Y]), "labels for 2 outputs"),
        ((X, (Y, Y)), "labels for 2 outputs"),
        ([(X, {"cls": Y, "reg": Y})], "cls, reg"),
        ([(X, [Y, Y])], "labels for 2 outputs"),
        (({"x": X}, {"cls": Y, "reg": Y}), "cls, reg"),
    ],
)
def test_labels_of_several_outputs_are_told_as_such(source: Any, names: str) -> None:
    with pytest.raises(DataError, match="first output") as caught:
        Split(source, "valid").first()
    assert names in caught.value.came
    assert "y['cls']" in caught.value.do or "y[0]" in caught.value.do


def test_labels_of_one_output_in_a_list_and_labels_row_by_row_are_read() -> None:
    assert as_batch((X, [Y])).targets is Y
    assert as_batch((X[:3], list(np.eye(3)))).targets.shape == (3, 3)
    two_dicts = ({"x": X[:5], "labels": Y[:5]}, {"x": X[5:], "labels": Y[5:]})
    assert [batch.rows for batch in Split(two_dicts, "valid")] == [5, 5]


def test_arrays_in_a_list_are_read_as_in_a_tuple() -> None:
    assert [(batch.rows, batch.targets is not None) for batch in Split([X, Y], "valid")] == [(10, True)]
    assert [(batch.rows, batch.targets is None) for batch in Split([X, X], "valid")] == [(10, True)] * 2


def test_single_rows_in_a_list_are_told() -> None:
    with pytest.raises(DataError, match="gives single rows"):
        Split([(X[i], int(Y[i])) for i in range(10)], "valid").first()
