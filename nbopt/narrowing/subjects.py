"""What goes: single weights, or units with all that holds them. Both become masks, by share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from nbopt.errors import ModelError
from nbopt.narrowing import widths as of_widths
from nbopt.narrowing.layers import selected
from nbopt.narrowing.lowering import Lowering, Masks, Ranking, Traced
from nbopt.narrowing.masks import pattern_masks, smallest_go

Array = np.ndarray[Any, Any]
Shares = float | Mapping[str, float]
"""A share over all layers together, or one for each layer; layers that are not named give nothing."""


@dataclass(frozen=True)
class Choice:
    """Say what goes of one model: of each copy that is trained, another.

    Args:
        masks: Which single weights stay, by name.
        units: The units that go, by width; none of single weights.
        short: Why that is less than was asked for, "" where it isn't.
    """

    masks: Masks = field(default_factory=dict)
    units: Mapping[str, Array] = field(default_factory=dict)
    short: str = ""


class Subject(Protocol):
    """What both kinds have in common."""

    model: Any
    sizes: dict[str, int]
    notes: list[str]
    ranking: Ranking

    def choose(self, model: Any, shares: Shares, scores: Masks | None = None) -> Choice:
        """Return what goes of `model`, ranked anew where no scores are given."""
        ...

    def finished(self, model: Any, choice: Choice) -> Any:
        """Return the model that a choice asks for, with nothing of its masks left in it."""
        ...


class Weights:
    """Single weights of linear, convolution, recurrent and attention layers, and of embedding tables that are named.

    Args:
        model: A copy that may be changed.
        ranking: What makes a weight important.
        include: Layers to take, by name or glob; none means all but embedding tables, which are looked up: few of
            their weights are read for a row, and those of a rare token matter as much there as those of a common one.
        exclude: Layers to leave.
        pattern: N and M where N of every M neighbours stay; None where any may go.
    """

    def __init__(
        self,
        model: Any,
        ranking: Ranking,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        pattern: tuple[int, int] | None = None,
    ) -> None:
        self.model, self.ranking, self.pattern = model, ranking, pattern
        self.lowering: Lowering = ranking.lowering
        self.notes: list[str] = []
        weights = self.lowering.prunable_weights(model)
        # A pattern runs along what is multiplied; nothing is multiplied with a table.
        tables = [] if pattern is not None else self.lowering.tables(model)
        names = selected([*weights, *tables], _with_layer, include, exclude, self.lowering.layers(model))
        if not include:
            names = self._without_tables(names, tables)
        if not names:
            known = [*weights, *tables]
            raise ModelError(
                "layers with weights to prune (linear, convolution, recurrent)",
                "none among those of --include that --exclude leaves" if weights else "none in this model" if not tables
                else "embedding tables alone, whose weights all stay unless they are named",
                f"--include {known[0]}" if known else "choose another technique",
            )  # fmt: skip
        shapes = self.lowering.shapes(model)
        self.sizes = {name: math.prod(shapes[name]) for name in names}
        if pattern is not None:
            axes, width = self.lowering.input_axes(model), pattern[1]
            odd = [name for name in names if shapes[name][axes[name]] % width]
            if odd:
                more = f" and {len(odd) - 1} more" if odd[1:] else ""
                self.notes.append(f"{odd[0]}{more}: what {width} does not divide stays whole at the end of its inputs")

    def _without_tables(self, names: list[str], tables: Sequence[str]) -> list[str]:
        """Leave out embedding tables, and say so."""
        left = [name for name in names if name in tables]
        if left:
            told = _listed([_with_layer(name)[1] for name in left])
            self.notes.append(f"{told}: embedding tables, whose weights all stay; --include takes them in")
        return [name for name in names if name not in left]

    def choose(self, model: Any, shares: Shares, scores: Masks | None = None) -> Choice:
        """Return which weights stay. With a pattern, shares of less than the whole give whole patterns of fewer."""
        scores = self.ranking.scores(model) if scores is None else scores
        known = {name: scores[name] for name in self.sizes if name in scores and _gives(name, shares)}
        if not known:
            return Choice()
        if self.pattern is not None:
            n, m = self.pattern
            share = shares if isinstance(shares, float) else max(shares.values(), default=0.0)
            stay = m - round(share * m) if share < 1 - n / m else n
            return Choice(pattern_masks(known, stay, m, self.lowering.input_axes(model)))
        own = {name: shares.get(name, 0.0) for name in known} if isinstance(shares, Mapping) else shares
        masks = smallest_go(known, own)
        gone = sum(mask.size - int(np.count_nonzero(mask)) for mask in masks.values())
        short = _short(own, {name: mask.size for name, mask in masks.items()}, gone, "weights")
        return Choice(masks, short=short)

    def finished(self, model: Any, choice: Choice) -> Any:
        """Return the model itself: its zeros are in its weights."""
        del choice
        return model


class Units:
    """Channels, hidden units and heads.

    Args:
        traced: What can be made narrower.
        ranking: What makes a weight important.
        include: Layers to take, by name or glob; none means all but those whose units a normalization or an
            embedding spreads through the whole network.
        exclude: Layers to leave.
    """

    def __init__(
        self, traced: Traced, ranking: Ranking, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> None:
        self.traced, self.ranking = traced, ranking
        self.lowering: Lowering = ranking.lowering
        self.model = traced.model
        self.notes = list(traced.notes)
        self.shapes = self.lowering.shapes(self.model)
        names = self.lowering.layers(self.model)
        widths = selected(list(traced.widths), lambda width: width.layers, include, exclude, names)
        if not include:
            widths = self._without_streams(widths)
        if ranking.importance == "batchnorm":
            scales = self.lowering.scales(self.model)
            plain = [width.name for width in widths if not of_widths.scored(width, scales)]
            widths = [width for width in widths if width.name not in plain]
            if plain:
                self.notes.append(
                    f"{_listed(plain)} keep their size: no BatchNorm follows, whose scale would rank them"
                )
        self.widths = [width for width in widths if width.size > 1]
        if not self.widths:
            raise ModelError(
                "layers whose channels can be taken out",
                "none: every layer makes the output, is tied to one that does, or is left out"
                + "".join(f"; {note}" for note in self.notes),
                "prune without --structured, or --include a layer",
            )
        self.sizes = {width.name: width.size for width in self.widths}

    def _without_streams(self, widths: list[of_widths.Width]) -> list[of_widths.Width]:
        """Leave out what LayerNorm looks at as a whole, as long as anything else is left."""
        streams = [width for width in widths if width.normed]
        rest = [width for width in widths if not width.normed]
        if not streams or not rest:
            return widths
        told = _listed([f"{width.name} ({width.size})" for width in streams])
        self.notes.append(f"{told} keep their width, which LayerNorm looks at as a whole; --include takes them in")
        return rest

    def choose(self, model: Any, shares: Shares, scores: Masks | None = None) -> Choice:
        """Return the units that go, and with them all weights that hold them."""
        scores = self.ranking.scores(model) if scores is None else scores
        widths = [width for width in self.widths if _gives(width.name, shares)]
        known = {width.name: of_widths.importance(width, scores) for width in widths}
        fractions = of_widths.shared_fractions(known, shares) if isinstance(shares, float) else dict(shares)
        units = of_widths.choose(widths, known, fractions)
        short = _short(shares, self.sizes, sum(map(len, units.values())), "units")
        return Choice(of_widths.unit_masks(self.widths, units, self.shapes), units, short)

    def finished(self, model: Any, choice: Choice) -> Any:
        """Return a smaller model, without the units that go."""
        return self.traced.remove(model, choice.units)

    def counts(self, choice: Choice) -> str:
        """Return what went, in words."""
        gone = sum(len(units) for units in choice.units.values())
        places = f"{len(self.sizes)} places" if len(self.sizes) > 1 else next(iter(self.sizes))
        return f"{gone:,} of {sum(self.sizes.values()):,} units in {places}"


def _gives(name: str, shares: Shares) -> bool:
    """Tell whether anything of a layer may go."""
    return not isinstance(shares, Mapping) or shares.get(name, 0.0) > 0


def _with_layer(weight: str) -> list[str]:
    """Return the names by which a user may mean a weight: its own, and its layer's."""
    parts = weight.split("/")  # as Keras has them: "block/conv/kernel"
    if len(parts) > 1:
        return [weight, "/".join(parts[:-1]), *parts[:-1]]
    return [weight, weight.rpartition(".")[0]] if "." in weight else [weight]


def _short(shares: Shares, sizes: Mapping[str, int], gone: int, what: str) -> str:
    """Return in words that each layer keeps one, where more were to go; "" elsewhere."""
    if isinstance(shares, Mapping):
        asked = sum(round(shares.get(name, 0.0) * size) for name, size in sizes.items())
    else:
        asked = round(shares * sum(sizes.values()))
    return f"{asked:,} {what} were to go: each layer keeps at least one, so that none is empty" if gone < asked else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
