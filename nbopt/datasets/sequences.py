"""Japanese vowels."""

from __future__ import annotations

import numpy as np

from nbopt.datasets.cache import Files
from nbopt.datasets.sources import wheel
from nbopt.datasets.splits import Sequences

JAPANESE_VOWELS = Files(
    title="Japanese vowels",
    name="japanese-vowels",
    sha256={
        "JapaneseVowels_TRAIN.ts": "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
        "JapaneseVowels_TEST.ts": "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
    },
    sources=(wheel("aeon==1.6.0"),),
)

STEPS = 29
"""The longest utterance of either part; both are padded to it, so that one model takes both."""


def japanese_vowels() -> tuple[Sequences, Sequences]:
    """Load Japanese vowels: 270 and 370 utterances of nine men, 12 coefficients a step, 7 to 29 steps: who speaks.

    The split is the set's own: 30 utterances of each speaker to train on, 24 to 88 to test on.

    Returns:
        `(x_train, lengths_train, y_train), (x_test, lengths_test, y_test)`: float32 (rows, 29, 12), zero after the
        utterance's end; int64 lengths; int64 labels 0 to 8.

    Raises:
        DataError: The data is neither cached nor to be had.
    """
    files = JAPANESE_VOWELS.read()
    return _ts(files["JapaneseVowels_TRAIN.ts"]), _ts(files["JapaneseVowels_TEST.ts"])


def _ts(content: bytes) -> Sequences:
    """Read the `.ts` format: lines of `#` and `@`, then for each case its channels and its label, between colons."""
    lines = [line for line in content.decode("ascii").splitlines() if line and line[0] not in "#@"]
    x = np.zeros((len(lines), STEPS, 12), dtype=np.float32)
    lengths = np.zeros(len(lines), dtype=np.int64)
    y = np.zeros(len(lines), dtype=np.int64)
    for row, line in enumerate(lines):
        *channels, label = line.split(":")
        values = np.array([channel.split(",") for channel in channels], dtype=np.float32)
        lengths[row], y[row] = values.shape[1], int(label) - 1
        x[row, : values.shape[1]] = values.T
    return Sequences(x, lengths, y)
