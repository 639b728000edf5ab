"""What ranks units."""

from __future__ import annotations

import pytest

from nbopt.narrowing.lowering import is_added


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("features.0.weight", False),
        ("features.0.bias", True),
        ("lstm.bias_ih_l0", True),
        ("attention.in_proj_bias", True),
        ("3:block/conv/kernel", False),
        ("4:norm/gamma", False),
        ("5:norm/beta", True),
        ("6:dense/bias", True),
        ("bias", True),
        ("biased/kernel", False),
    ],
)
def test_what_is_added_does_not_rank_units(name: str, added: bool) -> None:
    assert is_added(name) == added
