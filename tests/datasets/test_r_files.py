"""R's files: what is read, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from nbopt.datasets.r_files import frame, lazy_frame
from nbopt.datasets.tables import LETTER
from nbopt.datasets.texts import FINE_FOOD_REVIEWS


def test_a_frame_comes_with_its_names_and_categories_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = frame(LETTER.read()["LetterRecognition.rda"], "LetterRecognition")
    assert table.shape == (20000, 17)
    assert list(table["lettr"].cat.categories) == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert (table["lettr"].iloc[0], table["x.box"].iloc[0]) == ("T", 2)


def test_a_lazy_frame_is_read_as_utf8_with_no_warning() -> None:
    files = FINE_FOOD_REVIEWS.read()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = lazy_frame(files["Rdata.rdx"], files["Rdata.rdb"], "testing_data")
    assert list(table.columns) == ["product", "review", "score"]
    (odd,) = [text for text in table["review"] if not text.isascii()]
    # Whoever made the set had already lost the accents; what they left of them is read as what it is.
    assert "the C\ufffdtes-du-Rh\ufffdne region" in odd


def test_another_way_of_packing_is_said() -> None:
    files = FINE_FOOD_REVIEWS.read()
    other = bytearray(files["Rdata.rdb"])
    begin = 3407777
    assert other[begin + 4 : begin + 5] == b"Z"
    other[begin + 4] = ord("2")
    with pytest.raises(ValueError, match="testing_data is packed as b'2', not by xz"):
        lazy_frame(files["Rdata.rdx"], bytes(other), "testing_data")


def test_numbers_are_numbers() -> None:
    table = frame(LETTER.read()["LetterRecognition.rda"], "LetterRecognition")
    assert table.drop(columns="lettr").to_numpy(np.float64).max() == 15
