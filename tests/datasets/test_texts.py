"""The reviews, the sentence encoder, and one as the other takes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nbopt import datasets
from nbopt.batches import as_batch
from nbopt.datasets.texts import MINILM
from nbopt.errors import DataError, MissingExtra


def test_the_reviews_are_the_whole_set() -> None:
    train, test = datasets.fine_food_reviews()
    assert (len(train.texts), len(test.texts)) == (4000, 1000)
    assert (np.bincount(train.y).tolist(), np.bincount(test.y).tolist()) == ([1400, 2600], [342, 658])
    assert {type(text) for text in train.texts} == {str}
    assert (min(map(len, train.texts)), max(map(len, test.texts))) == (50, 8055)
    assert test.texts[0].startswith("These are the best tasting gummy fruits")
    assert test.y[0] == 1


def test_the_first_reviews_are_taken() -> None:
    (texts, y), (test_texts, _) = datasets.fine_food_reviews(rows=10, test_rows=3)
    (all_texts, all_y), _ = datasets.fine_food_reviews()
    assert (texts, y.tolist()) == (all_texts[:10], all_y[:10].tolist())
    assert len(test_texts) == 3
    with pytest.raises(DataError, match=r"expected: test_rows from 1 to 1000\ncame: test_rows=1001"):
        datasets.fine_food_reviews(test_rows=1001)


def test_reviews_lie_beside_their_stars() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    (texts, y), (texts_test, y_test) = datasets.fine_food_reviews()
    simple = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=3))
    # Always saying five stars is right in 66%.
    assert simple.fit(texts, y).score(texts_test, y_test) > 0.76


def test_without_their_reader_the_reviews_are_not_fetched(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdata", None)
    with pytest.raises(MissingExtra, match=r'do: pip install "nbopt\[bench\]"'):
        datasets.fine_food_reviews()
    assert not empty_cache.exists()


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Any]:
    return datasets.minilm()


def test_the_encoder_knows_what_sentences_mean(encoder: tuple[Any, Any]) -> None:
    model, tokenizer = encoder
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_216
    assert not model.training
    said = ["The coffee is excellent.", "I love this coffee!", "The train leaves at noon."]
    words = tokenizer(said, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**words).last_hidden_state
    mask = words["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    alike = (vectors @ vectors.T).numpy()
    assert alike[0, 1] > 0.6
    assert max(alike[0, 2], alike[1, 2]) < 0.3


def test_the_encoder_asks_no_hub_and_says_nothing(offline: None, capfd: pytest.CaptureFixture[str]) -> None:
    MINILM.read()
    before = dict(os.environ), torch.get_rng_state()
    capfd.readouterr()
    first, _ = datasets.minilm(labels=2, seed=1)
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    again, _ = datasets.minilm(labels=2, seed=1)
    other, _ = datasets.minilm(labels=2, seed=2)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


@pytest.mark.parametrize(("package", "extra"), [("transformers", "bench"), ("torch", "torch")])
def test_a_missing_package_is_named_before_the_model_is_fetched(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf'expected: {package}, .*\n.*\ndo: pip install "nbopt\[{extra}\]"'):
        datasets.minilm()
    assert not empty_cache.exists()


def test_a_loader_of_tokenized_reviews_feeds_nbopt_and_transformers(encoder: tuple[Any, Any]) -> None:
    (texts, y), _ = datasets.fine_food_reviews(rows=12)
    rows = datasets.tokenized(encoder[1], texts, y, max_tokens=32)
    assert {name: (values.shape, values.dtype) for name, values in rows.inputs.items()} == dict.fromkeys(
        ("input_ids", "token_type_ids", "attention_mask"), ((12, 32), np.dtype(np.int64))
    )
    first, second = torch.utils.data.DataLoader(rows, batch_size=8)
    assert [len(first["labels"]), len(second["labels"])] == [8, 4]
    assert torch.equal(torch.cat([first["labels"], second["labels"]]), torch.from_numpy(y))
    assert torch.equal(second["input_ids"], torch.from_numpy(rows.inputs["input_ids"][8:]))
    batch = as_batch(first)
    assert (set(batch.inputs), batch.rows) == ({"input_ids", "token_type_ids", "attention_mask"}, 8)
    assert torch.equal(batch.targets, first["labels"])
    classifier, _ = datasets.minilm(labels=2)
    with torch.no_grad():
        said = classifier(**first)
    assert said.logits.shape == (8, 2)
    assert said.loss.item() == pytest.approx(np.log(2), abs=0.2)


def test_texts_are_cut_and_padded(encoder: tuple[Any, Any]) -> None:
    _, tokenizer = encoder
    rows = datasets.tokenized(tokenizer, ["good", "good " * 50], [1, 0], max_tokens=6)
    good = tokenizer.convert_tokens_to_ids("good")
    start, end, pad = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    assert rows.inputs["input_ids"].tolist() == [[start, good, end, pad, pad, pad], [start, *[good] * 4, end]]
    assert rows.inputs["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]
    assert (len(rows), rows[1]["labels"]) == (2, 0)


def test_labels_of_another_number_and_lengths_out_of_range_are_refused(encoder: tuple[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"a label for each of 2 texts\ncame: labels of shape \(3,\)"):
        datasets.tokenized(encoder[1], ["a", "b"], [0, 1, 1])
    for length in (1, 513):
        with pytest.raises(DataError, match=rf"max_tokens from 2 to 512\ncame: max_tokens={length}"):
            datasets.tokenized(encoder[1], ["a"], [0], max_tokens=length)
