"""A word for each axis and the few words of a table."""

from __future__ import annotations

import pytest

from nbopt.measurement import verdicts
from nbopt.measurement.intervals import Interval


@pytest.mark.parametrize(
    ("size", "word"), [(1000, "same"), (985, "same"), (1015, "same"), (979, "better"), (1021, "worse"), (250, "better")]
)
def test_sizes_are_exact_and_two_percent_matter(size: int, word: str) -> None:
    assert verdicts.of_size(size, 1000) == word


@pytest.mark.parametrize(
    ("peak", "baseline", "word"),
    [
        (100 << 20, 100 << 20, "same"),
        (109 << 20, 100 << 20, "same"),
        (80 << 20, 100 << 20, "better"),
        (120 << 20, 100 << 20, "worse"),
        (1 << 20, 7 << 20, "same"),
        (7 << 20, 0, "same"),
    ],
)
def test_memory_moves_by_itself_so_ten_percent_and_eight_megabytes_matter(peak: int, baseline: int, word: str) -> None:
    assert verdicts.of_memory(peak, baseline) == word


@pytest.mark.parametrize(
    ("low", "value", "high", "greater", "word"),
    [
        (0.01, 0.02, 0.03, True, "better"),
        (-0.005, 0.0, 0.005, True, "same"),
        (-0.09, -0.05, -0.02, True, "worse"),
        (-0.05, 0.0, 0.05, True, "inconclusive"),
        (0.02, 0.05, 0.09, False, "worse"),
        (-0.03, -0.02, -0.01, False, "better"),
    ],
)
def test_quality_is_judged_by_its_interval(low: float, value: float, high: float, greater: bool, word: str) -> None:
    assert verdicts.of_quality(Interval(value, low, high), margin=0.01, greater_is_better=greater) == word


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"latency": "better", "size": "better", "quality": "same"}, "faster, smaller, same accuracy"),
        ({"latency": "worse", "size": "worse", "quality": "worse"}, "slower, larger, worse accuracy"),
        ({"latency": "busy", "size": "same", "quality": "identical"}, "machine busy"),
        ({"latency": "inconclusive", "quality": "inconclusive"}, "speed inconclusive, accuracy inconclusive"),
        ({"latency": "same", "quality": "slightly worse"}, "same speed, slightly worse accuracy"),
        ({"latency": "better", "technique": "better", "size": "better"}, "faster, smaller"),
        ({"latency": "better", "technique": "same", "size": "same"}, "faster by the runtime alone, same size"),
        ({"latency": "better", "technique": "worse"}, "slower than untouched there"),
        ({"latency": "better", "technique": "busy"}, "the technique's part inconclusive"),
        ({}, ""),
    ],
)
def test_the_phrase_names_what_was_measured(words: dict[str, str], text: str) -> None:
    phrase = verdicts.phrase(words, "accuracy")
    assert text in phrase
    assert bool(phrase) == bool(text)


def test_an_untouched_model_on_another_runtime_is_credited_to_the_runtime() -> None:
    assert verdicts.phrase({"latency": "better", "quality": "same"}, "auc", runtime_only=True) == "faster (runtime)"
    assert "worse auc" in verdicts.phrase({"latency": "better", "quality": "worse"}, "auc", runtime_only=True)
    assert "balanced accuracy" in verdicts.phrase({"quality": "same"}, "balanced_accuracy")
