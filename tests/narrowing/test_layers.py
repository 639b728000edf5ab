"""Which layers a user means."""

from __future__ import annotations

import pytest

from nbopt.errors import OptionError
from nbopt.narrowing.layers import selected


def test_layers_are_meant_by_name_by_glob_and_by_the_part_they_lie_in() -> None:
    names = ["features.0", "features.4", "head"]

    def take(include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> list[str]:
        return selected(names, lambda name: [name], include, exclude, also=["features"])

    assert take() == names
    assert take(("features",)) == names[:2]
    assert take(("*.4", "head")) == names[1:]
    assert take(("features",), ("features.0",)) == ["features.4"]
    with pytest.raises(OptionError) as caught:
        take(exclude=("haed",))
    assert "head" in caught.value.do
    assert "--exclude" in caught.value.expected
