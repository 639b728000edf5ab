"""Show a Comparison, or a Tuning: text, HTML, and the mime bundle that a notebook keeps. Pure functions of it.

Importing this package makes every Comparison and Tuning show itself.
"""

from __future__ import annotations

from nbopt.comparison import Comparison
from nbopt.rates import LRRange
from nbopt.render.card import workload_card
from nbopt.render.mime import MIME, bundle, payload, runs_of, schema
from nbopt.render.plain import text
from nbopt.render.rates import bundle as range_bundle
from nbopt.render.rich import html
from nbopt.render.sentences import run_sentence
from nbopt.render.tuning import bundle as tuning_bundle
from nbopt.tuning import Tuning

Comparison.renderer = bundle
Tuning.renderer = tuning_bundle
LRRange.renderer = range_bundle

__all__ = ["MIME", "bundle", "html", "payload", "run_sentence", "runs_of", "schema", "text", "workload_card"]
