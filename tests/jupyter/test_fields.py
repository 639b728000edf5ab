"""Fields: every option of every technique and group in a form, and the line that a form stands for."""

from __future__ import annotations

import pytest

from nbopt.jupyter.arguments import read_line
from nbopt.jupyter.fields import Filled, field_of, fields_of, line_of, use_line
from nbopt.jupyter.options import GROUPS, Output, Running
from nbopt.recipe.grammar import options_of
from nbopt.techniques import all_techniques

OWNERS = {**all_techniques(), **GROUPS}


@pytest.mark.parametrize("word", OWNERS)
def test_every_option_is_a_field_with_its_help(word: str) -> None:
    fields = fields_of(OWNERS[word])
    assert [field.name for field in fields] == list(options_of(OWNERS[word]))
    assert all(field.option.help for field in fields)
    for field in fields:
        assert field.kind != "choice" or field.start in field.choices
        # What the form shows at first is the default: it says nothing, and nothing is wrong with it.
        assert field.words(field.start) == []
        assert field.fault(field.start, {}) == ""


@pytest.mark.parametrize("word", all_techniques())
def test_a_form_as_it_is_stands_for_the_technique_itself(word: str) -> None:
    technique = all_techniques()[word]
    form = Filled(word, fields_of(technique), {field.name: field.start for field in fields_of(technique)})
    line = line_of([form], [])
    assert line == f"%optimize {word}"
    assert read_line(word, {}).request.recipe.techniques == (technique(),)


@pytest.mark.parametrize("word", all_techniques())
def test_every_choice_and_flag_can_be_read_back(word: str) -> None:
    technique = all_techniques()[word]
    fields = fields_of(technique)
    for field in fields:
        others = ("True", "False") if field.kind == "flag" else field.choices
        for value in others:
            words = Filled(word, fields, {field.name: value}).words
            (read,) = read_line(" ".join(words), {}).request.recipe.techniques
            assert str(getattr(read, field.name)) == value or value == field.start


def test_a_text_is_read_as_in_a_line() -> None:
    prune = {field.name: field for field in fields_of(all_techniques()["prune"])}
    assert prune["sparsity"].words("30%") == ["--sparsity", "30%"]
    assert prune["sparsity"].fault("30%", {}) == ""
    assert "between 0 and 1" in prune["sparsity"].fault("1.5", {})
    assert "half" in prune["sparsity"].fault("half", {})
    assert prune["sparsity"].fault("share", {"share": 0.25}) == ""
    assert prune["sparsity"].fault("auto", {}) == ""
    assert prune["include"].words("a | b") == ["--include", '"a | b"']
    assert "at least 0" in field_of(options_of(Running)["max_size"]).hint


def test_a_recipe_with_shared_options_is_one_line() -> None:
    techniques = all_techniques()
    prune = Filled("prune", fields_of(techniques["prune"]), {"structured": "True", "sparsity": "0.3"})
    quantize = Filled("quantize", fields_of(techniques["quantize"]), {"per_channel": "False"})
    running = Filled("", fields_of(Running), {"runtimes": "onnxruntime", "max_drop": "1%"})
    output = Filled("", fields_of(Output), {"o": "q8"})
    line = line_of([prune, quantize], [running, output])
    assert line == (
        "%optimize prune --sparsity 0.3 --structured --runtimes onnxruntime --max-drop 1% -o q8 "
        "| quantize --no-per-channel"
    )
    request = read_line(line.removeprefix("%optimize "), {}).request
    assert request.recipe.words == "prune+quantize"
    assert request.group(Running).max_drop == 0.01
    assert request.group(Output).o == "q8"


def test_without_a_technique_it_binds_and_measures() -> None:
    bound = use_line({"model": "net", "train": "train", "valid": "xv,yv", "test": "", "metric": "auc"})
    assert bound == "net --train train --valid xv,yv --metric auc"
    assert line_of([], [], bound) == f"%optimize use {bound}"


def test_a_form_says_what_differs_from_what_lines_take_anyway() -> None:
    usual = {"measure": "full", "max_drop": 0.01, "runtimes": ("onnxruntime",)}
    fields = {field.name: field for field in fields_of(Running, usual=usual)}
    assert (fields["measure"].start, fields["max_drop"].start, fields["seed"].start) == ("full", "0.01", "0")
    assert fields["measure"].words("full") == []
    assert fields["measure"].words("quick") == ["--measure", "quick"]
    assert fields["max_drop"].words("") == ["--max-drop", "None"]
    assert fields["runtimes"].words("") == ["--runtimes", "()"]
    line = "quantize --measure quick --max-drop None --runtimes ()"
    running = read_line(line, {}, usual).request.group(Running)
    assert (running.measure, running.max_drop, running.runtimes) == ("quick", None, ())
