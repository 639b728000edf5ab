"""Where Dropout and norms belong in a model, whatever framework it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["linear", "conv", "recurrent", "stack", "attention", "dropout"]
How = Literal["before", "channels", "between", "existing"]

OF_CHANNELS = 0.5
"""Of the rate, what whole channels of images get: neighbours in a feature map tell the same, so that taking a channel
costs more than taking a unit (Tompson et al. 2015, https://arxiv.org/abs/1411.4280)."""


@dataclass(frozen=True)
class Place:
    """Describe a layer that Dropout could go before, or one that drops out already.

    Args:
        name: As the framework has it.
        kind: "linear", "conv" and "recurrent" layers; "stack" for one with several recurrent layers in it; "attention"
            and "dropout" for those with a rate of their own.
        hidden: It hears other layers with weights, not the data.
        source: Number of the tensor that it hears; two places with one number hear the same.
        size: Height and width, or length, of what a convolution hears.
        dropped: What it hears comes from a Dropout layer.
        depthwise: A convolution of each channel for itself.
        rate: Of one that drops out already.
        normed: Its outputs go to a norm at once.
        channels: How many outputs it has.
    """

    name: str
    kind: Kind
    hidden: bool = False
    source: int = -1
    size: tuple[int, ...] = ()
    dropped: bool = False
    depthwise: bool = False
    rate: float = 0.0
    normed: bool = False
    channels: int = 0


@dataclass(frozen=True)
class Site:
    """Say where Dropout goes.

    Args:
        name: Of the layer.
        how: "before" it, on its inputs; "channels" before it, whole ones; "between" the layers in it; or it is an
            "existing" one whose rate changes.
        rate: Share that is dropped in training.
    """

    name: str
    how: How
    rate: float

    @property
    def text(self) -> str:
        """Return it in words: `0.15 of the channels before features.4`."""
        share = f"{self.rate:g}"
        if self.how == "existing":
            return f"{share} in {self.name}"
        of = f"{share} of the channels before" if self.how == "channels" else f"{share} {self.how}"
        return f"{of} {self.name}" if self.how != "between" else f"{of} the layers of {self.name}"


def dropout_sites(places: Sequence[Place], rate: float) -> list[Site]:
    """Return where Dropout goes (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).

    Where a model has Dropout, its author chose the places: rates change there, in the author's proportions with `rate`
    as the greatest, and it is added before the head alone. Else it goes before hidden linear layers (so after the
    activations before them) and before the head, before convolutions once for each size of image, whole channels of
    them at half the rate, before recurrent layers that hear others, and between those that are stacked in one. What
    shares its input with others (queries, keys and values) is left out, as are depthwise convolutions.

    Args:
        places: In the order in which they are called.
        rate: Above 0, below 1.
    """
    own = [place for place in places if place.kind in ("dropout", "attention")]
    if any(place.kind == "dropout" for place in own) or any(place.rate for place in own):
        greatest = max(place.rate for place in own)
        sites = [Site(p.name, "existing", rate * p.rate / greatest if greatest else rate) for p in own]
        sites = [site for site in sites if site.rate]
        head = _head(places)
        if head is not None and head.hidden and not head.dropped and head.kind == "linear":
            sites.append(Site(head.name, "before", rate))
        return _once(sites)
    heard = Counter((p.kind, p.source) for p in places)
    head, before, size = _head(places), set[int](), None
    sites = []
    for place in places:
        if place.kind == "stack":
            sites.append(Site(place.name, "between", rate))
        if place.kind == "conv":
            if place.depthwise:
                continue
            changed, size = size is not None and place.size != size, place.size
            if place.hidden and changed and place.source not in before:
                before.add(place.source)
                sites.append(Site(place.name, "channels", OF_CHANNELS * rate))
        elif place.hidden and (place is head or heard[place.kind, place.source] == 1):
            sites.append(Site(place.name, "before", rate))
    return _once(sites)


def norm_places(places: Sequence[Place]) -> list[Place]:
    """Return the layers after which a norm goes: linear ones and convolutions that have none yet, but not the head.

    Nets with attention and recurrent ones get none: norms stand elsewhere in those.
    """
    if any(place.kind in ("attention", "recurrent", "stack") for place in places):
        return []
    head = _head(places)
    counts = Counter(place.name for place in places)
    return [
        place
        for place in places
        if place.kind in ("linear", "conv") and place is not head and not place.normed and counts[place.name] == 1
    ]


def _head(places: Sequence[Place]) -> Place | None:
    return next((place for place in reversed(places) if place.kind in ("linear", "conv")), None)


def _once(sites: Sequence[Site]) -> list[Site]:
    """Return each site once: a layer that is called several times has one place."""
    return list(dict.fromkeys(sites))
