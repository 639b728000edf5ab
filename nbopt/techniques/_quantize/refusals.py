"""Why an option has no way with some form of file, where several forms say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbopt.techniques._quantize.weights import DEFAULT_GROUP

if TYPE_CHECKING:
    from nbopt.techniques.quantize import Quantize


def of_whole_numbers(options: Quantize) -> str:
    """Return why inputs and outputs can't be int8 in a form that has floats there; "" where that is not asked."""
    return "" if options.io == "float32" else "inputs and outputs are float32 here: --io int8 is for --runtime litert"


def of_groups(options: Quantize) -> str:
    """Return why int8 weights have no groups in a form that has a scale for each channel; "" where none are asked."""
    asked = options.how == "weight_only" and options.dtype == "int8" and options.group_size != DEFAULT_GROUP
    return "it has int8 weights with a scale for each channel only: leave --group-size out" if asked else ""
