"""Japanese vowels as they are."""

from __future__ import annotations

import numpy as np

from nbopt import datasets


def test_japanese_vowels_are_the_whole_set() -> None:
    train, test = datasets.japanese_vowels()
    assert (train.x.shape, test.x.shape, train.x.dtype) == ((270, 29, 12), (370, 29, 12), np.float32)
    assert (train.lengths.dtype, train.y.dtype) == (np.int64, np.int64)
    assert np.bincount(train.y).tolist() == [30] * 9
    assert np.bincount(test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert (train.lengths.min(), train.lengths.max(), test.lengths.max()) == (7, 26, 29)


def test_utterances_are_padded_at_their_end_and_nowhere_else() -> None:
    for x, lengths, _ in datasets.japanese_vowels():
        said = np.arange(x.shape[1]) < lengths[:, None]
        assert (x[~said] == 0).all()
        assert (x[said] != 0).any(axis=1).all()


def test_the_first_utterance_is_the_file_s_first() -> None:
    (x, lengths, y), _ = datasets.japanese_vowels()
    assert (lengths[0], y[0]) == (20, 0)
    assert np.allclose(x[0, :3, 0], [1.860936, 1.891651, 1.939205])
    assert np.allclose(x[0, 0, :3], [1.860936, -0.207383, 0.261557])


def test_utterances_lie_beside_their_speakers() -> None:
    from sklearn.linear_model import RidgeClassifier

    (x, lengths, y), (x_test, lengths_test, y_test) = datasets.japanese_vowels()
    mean, mean_test = x.sum(axis=1) / lengths[:, None], x_test.sum(axis=1) / lengths_test[:, None]
    # Chance is 24%, if one always says the speaker with the most utterances.
    assert RidgeClassifier().fit(mean, y).score(mean_test, y_test) > 0.8
