"""The part of the panel that says what is optimized: dropdowns over the notebook's models and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import ipywidgets as w

from nbopt.jupyter.arguments import read_line
from nbopt.jupyter.fields import use_line
from nbopt.jupyter.forms import LABEL, control_layout
from nbopt.jupyter.namespace import data_names, is_model, is_same, names_of
from nbopt.jupyter.options import MetricName

if TYPE_CHECKING:
    from nbopt.jupyter.session import Session

SPLITS = ("train", "valid", "test")
AS_BOUND = "the bound function"
"""Choice of a metric that was bound and that no variable holds."""


class Choices:
    """Hold the dropdowns of the model, the splits and the metric.

    Args:
        session: The shell's session, whose variables are offered.
        changed: Called at each change.
    """

    def __init__(self, session: Session, changed: Callable[[], None]) -> None:
        self._session = session
        self._offered: dict[str, str] = {}
        self._chosen: set[str] = set()
        self._controls = {
            name: w.Dropdown(options=[("", "")], description=name, style=LABEL, layout=control_layout())
            for name in ("model", *SPLITS, "metric")
        }
        for control in self._controls.values():
            control.observe(lambda _: changed(), "value")

    def __getitem__(self, name: str) -> Any:
        return self._controls[name]

    def rows(self, layout: w.Layout) -> list[w.HBox]:
        """Return the controls in two rows."""
        return [w.HBox([self[each] for each in part], layout=layout) for part in (("model", "metric"), SPLITS)]

    @property
    def words(self) -> str:
        """Return what follows `use`; what was bound and is not chosen is let go by name."""
        texts = {name: control.value for name, control in self._controls.items()}
        for name in (*SPLITS, "metric"):
            if not texts[name] and self._session.given.get(name) is not None:
                texts[name] = "None"
        if texts["metric"] == AS_BOUND:
            texts["metric"] = ""
        return use_line(texts)

    @property
    def binding(self) -> dict[str, Any]:
        """Return what the choices bind anew, {} where the session has bound just that."""
        given = read_line(f"use {self.words}", self._session.names).request.binding
        before = self._session.given
        return {} if all(is_same(before.get(name), value) for name, value in given.items()) else given

    def refresh(self) -> None:
        """Offer the models and the data that the notebook has now; what was chosen stays where it is still there."""
        names, given = self._session.names, self._session.given
        bound = {name: self._session.name_of(value) for name, value in given.items()}
        models, data = names_of(names, is_model), data_names(names)
        usual = {
            "model": bound.get("model") or (models[-1] if models else ""),
            "train": bound.get("train") or _first(data, "train"),
            "valid": bound.get("valid") or _first(data, "val"),
            "test": bound.get("test") or _first(data, "test"),
        }
        for name in ("model", *SPLITS):
            none = "none" if name != "model" else "no model here yet"
            self._offer(name, none, models if name == "model" else data, self[name].value or usual[name])
        metric = given.get("metric")
        own = "" if metric is None else metric if isinstance(metric, str) else bound["metric"] or AS_BOUND
        known = dict.fromkeys([*get_args(MetricName), *([own] if own else [])])
        self._offer("metric", "by the data", list(known), own)

    def _offer(self, name: str, none: str, known: Sequence[str], usual: str) -> None:
        """Offer names, with `none` before them; what a person chose stays chosen, which may be none of them."""
        control = self[name]
        if control.value != self._offered.get(name, ""):
            self._chosen.add(name)
        kept = control.value if name in self._chosen else usual
        if kept not in ("", *known):  # it is gone from the notebook
            self._chosen.discard(name)
            kept = usual
        control.options = [(none, ""), *((each, each) for each in known)]
        control.value = self._offered[name] = kept if kept in known else ""


def _first(names: Sequence[str], part: str) -> str:
    return next((name for name in names if part in name.lower()), "")
