"""Embedding tables with one row for all that train does not look up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nbopt.batches import as_batch
from nbopt.draft import Context, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.loop import optimize
from nbopt.narrowing._torch import LOWERING
from nbopt.narrowing._torch.vocabulary import lookups
from nbopt.narrowing.vocabulary import places, rows_kept, smaller_table, with_shared_rows
from nbopt.techniques.prune import Prune
from nbopt.workload import Workload

WORDS, LENGTH = 800, 12


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(1, 4))
def test_rows_that_stay_are_found_again_and_the_others_share_their_mean(counts, least):
    counted = np.array(counts)
    kept = rows_kept(counted, least)
    if kept is None:
        assert not (counted >= least).any() or (counted >= least).sum() + 1 > 0.9 * len(counted)
        return
    table = np.random.default_rng(0).normal(size=(len(counts), 3)).astype(np.float32)
    small, where = smaller_table(table, kept), places(len(counts), kept)
    assert len(small) == len(kept) + 1
    stays = counted >= least
    assert (small[where[stays]] == table[stays]).all()
    assert np.allclose(small[where[~stays]], table[~stays].mean(0), atol=1e-6)


class Reader(nn.Module):
    """Words, their mean, a hidden layer: `tie` multiplies with the table again, `bag` looks up and averages at once."""

    def __init__(self, tie: bool = False, bag: bool = False) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(WORDS, 16, padding_idx=0) if bag else nn.Embedding(WORDS, 16, padding_idx=0)
        self.hidden = nn.Linear(16, 32)
        self.back = nn.Linear(32, 16)
        self.head = nn.Linear(16, 4)
        self.tie, self.bag = tie, bag

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.back(torch.relu(self.hidden(self.words(ids) if self.bag else self.words(ids).mean(1))))
        return x @ self.words.weight.T if self.tie else self.head(x)


def rows(seed: int, words: int = 90, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, words, (200, LENGTH))
    ids[:, -3:] = 0
    return ids, ids.sum(1) % labels


@pytest.mark.parametrize("bag", [False, True])
def test_a_torch_table_becomes_small_and_its_outputs_stay_in_the_file(store, bag):
    torch.manual_seed(0)
    model = Reader(bag=bag).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (x, y), (xt, yt) = rows(0), rows(1)
    work = Workload(model, train=(x, y), test=(xt, yt))
    found = optimize(
        work,
        Prune(sparsity=0.01, structured=True, min_count=1, epochs=0),
        runtimes=["torch", "onnxruntime"],
        store=store,
    )
    for runtime in ("torch", "onnxruntime"):
        run, base = found[f"prune/{runtime}"], found[f"baseline/{runtime}"]
        assert not run.failed, run.reason
        # 90 words stay, padding among them, and one row for the rest.
        assert run.params == pytest.approx(base.params - (WORDS - 91) * 16, abs=32 * 16)
        assert run.size_bytes < base.size_bytes / 2
        assert any(f"words: 90 of {WORDS} rows stay" in note for note in run.notes), run.notes
        unseen = np.full((1, LENGTH), 400)
        assert np.allclose(run.predict(unseen), run.predict(unseen + 50))  # one row for all that train does not have
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_look_ups_are_counted_in_all_batches_though_most_stop_early():
    class Twice(Reader):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) + self.head(self.words(ids.flip(1) + 1).mean(1))

    model, (x, y) = Twice().eval(), rows(0)
    batches = [as_batch((x[i : i + 50], y[i : i + 50])) for i in range(0, 200, 50)]
    expected = np.bincount(x.reshape(-1), minlength=WORDS) + np.bincount(x.reshape(-1) + 1, minlength=WORDS)
    counts = lookups(model, batches)["words"]
    assert (counts[1:] == expected[1:]).all()
    assert counts[0] > x.size  # the row of padding stays its own
    assert not model.words._forward_pre_hooks


def test_look_ups_of_each_step_are_counted_in_longer_batches_too():
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(10, 4), nn.Embedding(4, 4)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.places(ids[:, 0] * 0) + sum(self.words(ids[:, at]) for at in range(ids.shape[1]))

    ids = [np.array([[1, 2]]), np.array([[1, 2, 7, 7]])]
    assert lookups(Steps(), [as_batch((each, np.zeros(1))) for each in ids])["words"].tolist()[1:8] == [
        2,
        2,
        *[0] * 4,
        2,
    ]


@pytest.mark.parametrize(("least", "told"), [(1, "or more of its rows"), (10_000, "train looks no row up as often")])
def test_why_a_table_stays_whole_is_told(least, told):
    x = np.arange(WORDS // LENGTH * LENGTH).reshape(-1, LENGTH)
    work = Workload(Reader().eval(), train=(x, x[:, 0] % 4), test=(x, x[:, 0] % 4))
    smaller, notes = with_shared_rows(work.model, LOWERING, Context(work), least)
    assert smaller is work.model
    assert told in notes[0]


def test_rows_go_where_nothing_else_can():
    (x, y) = rows(0)
    model = nn.Sequential(nn.EmbeddingBag(WORDS, 16), nn.Linear(16, 4)).eval()
    work = Workload(model, train=(x, y), test=(x, y))
    draft = Prune(structured=True, min_count=1).apply(Draft(work.model), Context(work))
    assert len(draft.model[0].weight) == 91
    assert draft.plan.epochs == 1
    assert any("no units were taken out" in note for note in draft.notes)
    with pytest.raises(ModelError, match="every layer makes the output"):
        Prune(structured=True).apply(Draft(work.model), Context(work))


def test_a_layer_that_holds_layers_keeps_weights_of_its_own():
    import keras

    from nbopt.narrowing._keras.vocabulary import with_shared_rows as without_rows

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.layers = [keras.layers.Dense(4, name="inner")]
            self.layers[0].build(shape)
            self.scale = self.add_weight(shape=(4,), initializer="ones", name="scale")

        def call(self, x):
            return self.layers[0](x) * self.scale

    L = keras.layers
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), L.Embedding(20, 4, name="words"), L.Flatten(), Scaled()]
    )
    model.layers[-1].scale.assign(np.arange(4.0))
    smaller, left = without_rows(model, {"words": np.arange(5)}, None)
    assert left == {}
    ids = np.array([[0, 1, 4]], np.int32)
    np.testing.assert_allclose(smaller(ids), model(ids), atol=1e-6)


def test_words_that_are_learned_after_the_rows_went_are_those_that_stay(store):
    torch.manual_seed(0)
    (x, y), (xt, yt) = rows(0), rows(1)
    work = Workload(Reader(), train=(x, y), valid=(xt, yt), test=(xt, yt))
    found = optimize(
        work, Prune(sparsity=0.5, structured=True, min_count=2, epochs=2), runtimes=["torch"], store=store, seed=3
    )
    assert not found["prune/torch"].failed, found["prune/torch"].reason
    table = found["prune/torch"].model.words
    assert table.padding_idx == 0
    assert not table.weight[0].any() or torch.equal(table.weight[0], work.model.words.weight[0])


def test_a_table_that_is_multiplied_with_stays_whole(store):
    torch.manual_seed(0)
    (x, y), (xt, yt) = rows(0, labels=WORDS), rows(1, labels=WORDS)
    work = Workload(Reader(tie=True).eval(), train=(x, y), test=(xt, yt))
    run = optimize(work, Prune(sparsity=0.25, structured=True, min_count=1, epochs=0), runtimes=["torch"], store=store)[
        "prune/torch"
    ]
    assert not run.failed, run.reason
    assert any("words keeps all of its rows: the model does not only look rows up" in note for note in run.notes)


def test_single_weights_have_no_rows_to_count(store):
    (x, y) = rows(0)
    with pytest.raises(OptionError, match="min-count"):
        optimize(Workload(Reader(), train=(x, y), test=(x, y)), Prune(min_count=1), store=store)


@pytest.mark.parametrize("mask_zero", [False, True])
def test_a_keras_table_becomes_small_on_every_runtime(store, mask_zero):
    import keras

    keras.utils.set_random_seed(0)
    L = keras.layers
    model = keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            L.Embedding(WORDS, 16, mask_zero=mask_zero, name="words"),
            L.GlobalAveragePooling1D(),
            L.Dense(32, activation="relu"),
            L.Dense(4),
        ]
    )
    (x, y), (xt, yt) = rows(0), rows(1)
    work = Workload(model, train=(x.astype("int32"), y), test=(xt.astype("int32"), yt))
    before = [v.numpy().copy() for v in model.variables]
    names = ["keras", "litert", "onnxruntime", "openvino"]
    found = optimize(work, Prune(sparsity=0.05, structured=True, min_count=1, epochs=0), runtimes=names, store=store)
    for runtime in names:
        run, base = found[f"prune/{runtime}"], found[f"baseline/{runtime}"]
        assert not run.failed, (runtime, run.reason)
        assert any(f"words: 90 of {WORDS} rows stay" in note for note in run.notes), run.notes
        unseen = np.full((1, LENGTH), 400, "int32")
        assert np.allclose(run.predict(unseen), run.predict(unseen + 50), atol=1e-5)
        if runtime != "keras":
            assert run.size_bytes < base.size_bytes
    assert all((v.numpy() == b).all() for v, b in zip(model.variables, before, strict=True))
