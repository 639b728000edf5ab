"""What an artifact really is, layer by layer: realised precision, sparsity, and what falls short of what was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nbopt.runtimes import UNKNOWN, Layer

LAYERS_KEPT = 200
ENOUGH = 0.5
"""Share of the MACs, or of the weights, that must have the precision asked for."""

FAMILIES = {"uint8": "int8", "uint4": "int4", "nf4": "int4", "uint16": "int16"}


@dataclass(frozen=True)
class Audit:
    """Hold the layers of an artifact with their sums. Sums are over all layers, the ones left out too.

    Args:
        layers: In the order of the model, the largest by MACs where there are more than `LAYERS_KEPT`.
        macs: Multiply-accumulates for one row.
        weights: Elements of all weights, biases left out.
        zeros: How many of those are zero.
        mac_shares: Share of the MACs that run in each precision, in [0, 1]; "unknown" where a runtime does not tell.
        weight_shares: Share of the weights that are stored in each dtype, in [0, 1].
        counts: How many layers run in each precision, of those that multiply.
        held: How many layers store their weights in each dtype.
        left_out: Layers that are in the sums only.
        leftovers: Masks, parametrizations and fake quantizers that should have been taken out before the export.
        unread: Why the artifact could not be audited, "" where it was.
    """

    layers: tuple[Layer, ...] = ()
    macs: int = 0
    weights: int = 0
    zeros: int = 0
    mac_shares: Mapping[str, float] = field(default_factory=dict)
    weight_shares: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    leftovers: tuple[str, ...] = ()
    unread: str = ""

    @property
    def zeros_share(self) -> float:
        """Return the share of the weights that are zero, in [0, 1]."""
        return self.zeros / self.weights if self.weights else 0.0

    @property
    def precision(self) -> str:
        """Return the precision that most MACs run in, or that most weights have where nothing multiplies."""
        shares = self.mac_shares or self.weight_shares
        return max(shares, key=lambda name: shares[name], default="")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        body = asdict(self)
        body["layers"] = [{**asdict(layer), "weight_shape": list(layer.weight_shape)} for layer in self.layers]
        body["leftovers"] = list(self.leftovers)
        return {**body, **{key: dict(body[key]) for key in ("mac_shares", "weight_shares", "counts", "held")}}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Audit:
        """Return the audit that `to_dict` wrote; what is missing or new in it is left out."""
        known = {spec.name for spec in fields(Layer)}
        layers = [{key: value for key, value in layer.items() if key in known} for layer in body.get("layers", ())]
        kept = {spec.name: body[spec.name] for spec in fields(cls) if spec.name in body}
        kept["layers"] = tuple(Layer(**{**e, "weight_shape": tuple(e.get("weight_shape", ()))}) for e in layers)
        kept["leftovers"] = tuple(body.get("leftovers", ()))
        return cls(**kept)


def family_of(dtype: str) -> str:
    """Return the precision that a dtype counts as: "int8" for "uint8" and for "int8 dynamic"."""
    word = dtype.partition(" ")[0]
    return FAMILIES.get(word, word)


def audit_of(layers: Iterable[Layer], leftovers: Sequence[str] = ()) -> Audit:
    """Return the sums over layers; beyond `LAYERS_KEPT` only the largest by MACs, then by weights, are kept."""
    every = tuple(layers)
    macs = sum(layer.macs for layer in every)
    weights = sum(layer.weights for layer in every)
    largest = sorted(range(len(every)), key=lambda i: (-every[i].macs, -every[i].weights))[:LAYERS_KEPT]
    multiplying = [layer for layer in every if layer.macs]
    return Audit(
        tuple(every[i] for i in sorted(largest)),
        macs,
        weights,
        sum(layer.zeros for layer in every),
        _shares((family_of(layer.compute_dtype), layer.macs) for layer in every),
        _shares((family_of(layer.weight_dtype), layer.weights) for layer in every),
        _counts(family_of(layer.compute_dtype) for layer in multiplying),
        _counts(family_of(layer.weight_dtype) for layer in every if layer.weights),
        max(0, len(every) - LAYERS_KEPT),
        tuple(leftovers),
    )


def shortfall(audit: Audit, asked: str, *, weight_only: bool = False) -> str:
    """Return what falls short of the precision asked for, in plain words; "" where nothing does.

    Args:
        audit: What the artifact is.
        asked: "int8", "float16", "bfloat16", "float32", or "" where nothing was asked for.
        weight_only: The format is meant to store weights in `asked` and to compute in another precision.
    """
    if not asked or audit.unread or not (audit.macs or audit.weights):
        return ""
    asked = family_of(asked)
    stored = audit.weight_shares.get(asked, 0.0)
    if weight_only or not audit.macs:
        return "" if stored >= ENOUGH else _few(asked, "weights are", stored, audit.held)
    runs = audit.mac_shares.get(asked, 0.0)
    if runs >= ENOUGH:
        return ""
    main, unknown = audit.precision, audit.mac_shares.get(UNKNOWN, 0.0)
    if runs + unknown >= ENOUGH:
        # Neither shown nor refuted: stored as asked it may pass, else the reader is told what is known.
        known = "" if stored >= ENOUGH else _few(asked, "MACs are known to run in", runs, audit.counts)
        return f"{known}, and of {_percent(unknown)} the runtime does not tell" if known else ""
    if asked == "bfloat16" and main == "float32":
        # OpenVINO keeps the weights of either as float16.
        return "bfloat16 asked: this CPU computes in float32"
    if stored >= ENOUGH and not runs:
        return f"{asked} is storage only: computes in {main}"
    return _few(asked, "MACs run in", runs, audit.counts)


def leftovers(audit: Audit, baseline: Audit | None = None) -> str:
    """Return nbopt's own error where masks, parametrizations or fake quantizers survived into an artifact, else "".

    Args:
        audit: What the artifact is.
        baseline: What the untouched model is on the same runtime: what it holds too is the user's own.
    """
    own = set(baseline.leftovers) if baseline is not None else set()
    found = [name for name in audit.leftovers if name not in own]
    if not found:
        return ""
    named, more = ", ".join(found[:3]), len(found) - 3
    return f"an error of nbopt's: the artifact still holds {named}" + (f" and {more} more" if more > 0 else "")


def _few(asked: str, what: str, share: float, counts: Mapping[str, int]) -> str:
    number, whole = counts.get(asked, 0), sum(counts.values())
    return f"{asked} asked, {_percent(share)} of {what} {asked} ({number} of {whole} layers)"


def _percent(share: float) -> str:
    percent = round(100 * share)
    return "under 1%" if share and not percent else f"{percent}%"


def _shares(pairs: Iterable[tuple[str, int]]) -> dict[str, float]:
    sums: dict[str, int] = {}
    for name, count in pairs:
        if count:
            sums[name] = sums.get(name, 0) + count
    whole = sum(sums.values())
    return {name: sums[name] / whole for name in sorted(sums, key=lambda name: -sums[name])}


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


__all__ = ["Audit", "audit_of", "family_of", "leftovers", "shortfall"]
