"""Forms: folds that are buttons, and so are reached by keys."""

from __future__ import annotations

import ipywidgets as w

from nbopt.jupyter.forms import Fold, Step
from nbopt.techniques import all_techniques


def test_a_fold_shows_and_hides_by_its_button() -> None:
    fold = Fold("options", [w.HTML("what is folded")])
    assert fold.body.layout.display == "none"
    assert (fold.button.description, fold.button.tooltip) == ("\u25b8 options", "show options")
    fold.button.value = True
    assert fold.body.layout.display == ""
    assert (fold.button.description, fold.button.tooltip) == ("\u25be options", "hide options")


def test_a_step_shows_the_options_of_its_technique_and_keeps_what_was_filled() -> None:
    step = Step("", {}, lambda: None)
    assert step.form is None
    assert step.options.box.layout.display == "none"
    for word in all_techniques():
        step.choice.value = word
        assert step.options.title == f"options of {word}"
        assert step.options.body.children == (step.form.box,)  # type: ignore[union-attr]
    step.choice.value = "prune"
    assert step.form is not None
    step.form.fill({"sparsity": "30%"})
    step.choice.value = ""
    step.choice.value = "prune"
    assert step.form.values["sparsity"] == "30%"
