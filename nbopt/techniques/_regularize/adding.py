"""Dropout and norms added to a draft's model, and taken out of it for the file that ships."""

from __future__ import annotations

from typing import Any

import numpy as np

from nbopt.batches import take_rows
from nbopt.draft import Context, Draft
from nbopt.errors import ModelError, OptionError
from nbopt.techniques._regularize.calibrating import CALIBRATED_ROWS, TOLERANCE, change_of
from nbopt.techniques._regularize.lowering import lowering_of
from nbopt.techniques._regularize.places import Place, Site, dropout_sites, norm_places

COMPARED_ROWS = 256
SHOWN = 6


def sites_of(model: Any, context: Context, rate: float) -> list[Site]:
    """Return where Dropout goes in a model, [] where there is no place for it."""
    places = lowering_of(context).places(model, context.workload.signature.example)
    return dropout_sites(places, rate)


def norms_of(model: Any, context: Context) -> list[Place]:
    """Return the layers after which a norm can go, [] where there are none."""
    return norm_places(lowering_of(context).places(model, context.workload.signature.example))


def with_dropout(draft: Draft, context: Context, rate: float) -> Draft:
    """Return the draft with Dropout in a copy of its model, and a note of where.

    Raises:
        ModelError: There is no place for it.
    """
    model = context.workload.framework.clone(draft.model)
    sites = sites_of(model, context, rate)
    if not sites:
        raise ModelError(
            "layers to put Dropout before, or Dropout layers whose rates can change",
            f"none in {type(draft.model).__name__}: no layer hears another one with weights",
            "leave --dropout out; --label-smoothing, --mixup, --averaging and --weight-decay need no layers",
        )
    named = ", ".join(site.text for site in sites[:SHOWN])
    more = f" and {len(sites) - SHOWN} more" if len(sites) > SHOWN else ""
    return draft.with_(model=lowering_of(context).with_dropout(model, sites)).noted(f"dropout: {named}{more}")


def with_norms(draft: Draft, context: Context, kind: str, *, trained: bool) -> Draft:
    """Return the draft with norms in a copy of its model, set so that it computes what it did.

    Args:
        draft: The candidate so far.
        context: Has the rows of train by which norms are set.
        kind: "batchnorm" or "layernorm".
        trained: The model has a function to be kept.

    Raises:
        ModelError: There is no place for norms, or outputs would change.
        OptionError: An earlier step takes units out of the layers after the training.
    """
    if draft.narrows:
        raise OptionError(
            "norms before a step that takes units out during the training",
            "norms after it, between layers that it knows",
            "regularize | prune, or --schedule one-shot",
        )
    workload = context.workload
    assert workload.train is not None
    model = workload.framework.clone(draft.model)
    places = norms_of(model, context)
    if not places:
        raise ModelError(
            "linear layers or convolutions without a norm, beside the head",
            f"none in {type(draft.model).__name__}, or a net with attention or recurrent layers",
            "leave --norm out",
        )
    before = _some_outputs(model, context)
    rows = workload.train.some(CALIBRATED_ROWS, COMPARED_ROWS, context.rng())
    changed = lowering_of(context).with_norms(model, kind, places, rows)
    change = change_of(before, _some_outputs(changed, context))
    if trained and not change <= TOLERANCE:
        raise ModelError(
            f"outputs that stay within {TOLERANCE:g} of their spread once norms are in",
            f"a change by {change:.3g} of it: {kind} depends on the row, so that no constants undo it"
            if kind == "layernorm"
            else f"a change by {change:.3g} of it",
            "--norm batchnorm, or start from an untrained model",
        )
    names = ", ".join(place.name for place in places[:SHOWN]) + (", ..." if len(places) > SHOWN else "")
    kept = f"outputs changed by {change:.1g} of their spread" if trained else "the model had no function to keep"
    return draft.with_(model=changed).noted(f"{kind} after {names}, set by rows of train: {kept}")


def deployed(draft: Draft, context: Context) -> Draft:
    """Return the draft with Dropout out of its model and BatchNorm folded, where outputs stay what they are."""
    workload = context.workload
    before = _some_outputs(draft.model, context)
    try:
        model = workload.framework.clone(draft.model)
        model, dropped, folded = lowering_of(context).deployed(model, workload.signature.example)
        change = change_of(before, _some_outputs(model, context))
    except (ModelError, AttributeError, TypeError, RuntimeError, ValueError) as error:
        # The code of a user's model may ask a layer for what its stand-in has not, and raises as it likes.
        reason = (str(error).strip().splitlines() or [""])[0]
        return draft.noted(f"BatchNorm was not folded nor Dropout taken out: {type(error).__name__}: {reason}")
    if not change <= TOLERANCE:
        return draft.noted(
            f"BatchNorm was not folded nor Dropout taken out: outputs would change by {change:.3g} of their spread"
        )
    did = [f"BatchNorm of {_layers(folded)} folded"] if folded else []
    did += [f"Dropout taken out of {dropped} place{'s' if dropped > 1 else ''}"] if dropped else []
    if not did:
        return draft
    return draft.with_(model=model).noted(f"{' and '.join(did)}: outputs changed by {change:.1g} of their spread")


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def _some_outputs(model: Any, context: Context) -> np.ndarray[Any, Any]:
    """Return a model's outputs for some rows of the selection split."""
    inputs = take_rows(next(context.workload.select_rows.batches()), slice(0, COMPARED_ROWS))
    return context.workload.framework.predict(model, inputs)
