"""Show a Comparison: text, HTML, and the mime bundle that a notebook keeps. Pure functions of it.

Importing this package makes every Comparison show itself.
"""

from __future__ import annotations

from nbopt.comparison import Comparison
from nbopt.rates import LRRange
from nbopt.render.card import workload_card
from nbopt.render.mime import MIME, bundle, payload, schema
from nbopt.render.plain import text
from nbopt.render.rates import bundle as range_bundle
from nbopt.render.rich import html
from nbopt.render.sentences import run_sentence

Comparison.renderer = bundle
LRRange.renderer = range_bundle

__all__ = ["MIME", "bundle", "html", "payload", "run_sentence", "schema", "text", "workload_card"]
