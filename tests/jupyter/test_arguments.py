"""Lines of the magic: verbs, pipelines, shared options, for every technique and verb found."""

from __future__ import annotations

from typing import get_args

import pytest

from nbopt.errors import OptionError
from nbopt.jupyter.arguments import line_options, read_line
from nbopt.jupyter.options import Binding, MetricName, Output, Running
from nbopt.jupyter.verbs import Verb, all_verbs
from nbopt.jupyter.verbs.help import HelpPage, page_of
from nbopt.measurement.metrics import METRICS
from nbopt.recipe.grammar import options_of
from nbopt.recipe.values import is_flag
from nbopt.technique import Technique
from nbopt.techniques import all_techniques

NAMES = {"net": "the model", "valid_dl": "the loader", "q8": 1, "share": 0.25, "own": len}
EVERY = [*all_verbs().values(), *all_techniques().values()]


def test_the_verbs_of_the_main_job_are_there() -> None:
    assert {"use", "compare", "runs", "show", "export", "doctor", "help"} <= set(all_verbs())
    assert {"prune", "quantize"} <= set(all_techniques())
    assert not set(all_verbs()) & set(all_techniques())


def test_every_metric_is_a_word_of_the_option() -> None:
    assert set(get_args(MetricName)) == set(METRICS)


def test_a_pipeline_and_its_shared_options() -> None:
    command = read_line(
        "prune --sparsity share --structured | quantize --dtype int8 --max-drop 1% --min-speedup 1.5x "
        "--max-size 2MB --max-latency 3ms --max-memory 1GiB --runtime onnxruntime,openvino --seed 7 -o q8 "
        "--valid valid_dl --metric own;",
        NAMES,
    )
    assert command.request.recipe.words == "prune+quantize"
    assert command.request.recipe.text().startswith("prune --sparsity 0.25 --structured | quantize")
    assert command.request.recipe.seed == 7
    assert command.request.group(Output).o == "q8"
    assert command.request.binding == {"valid": "the loader", "metric": len}
    assert command.request.group(Running).arguments() == {
        "runtimes": ("onnxruntime", "openvino"),
        "measure": "quick",
        "threads": None,
        "seed": 7,
        "seeds": 1,
        "max_drop": 0.01,
        "min_speedup": 1.5,
        "max_size": 2_000_000,
        "max_latency": 3.0,
        "max_memory": 1 << 30,
    }


def test_use_takes_the_model_without_dashes() -> None:
    command = read_line("use net --valid valid_dl --metric auc --runtimes all", NAMES)
    assert command.verb is not None
    assert command.verb.word == "use"
    assert command.request.binding == {"model": "the model", "valid": "the loader", "metric": "auc"}
    assert command.request.group(Running).arguments()["runtimes"] == "all"


def test_words_without_dashes_go_to_their_places() -> None:
    line = "export prune+quantize/openvino 'a folder/m' --force"
    assert read_line(line, NAMES).verb == all_verbs()["export"](
        name="prune+quantize/openvino", path="a folder/m", force=True
    )  # type: ignore[call-arg]
    assert read_line("compare q8, pr {q8}", NAMES).verb == all_verbs()["compare"](names=("q8", "pr", 1))  # type: ignore[call-arg]


@pytest.mark.parametrize("line", ["", "  ", "--help", "help"])
def test_nothing_is_help(line: str) -> None:
    assert read_line(line, {}).verb == all_verbs()["help"]()


def test_help_of_a_word() -> None:
    page = all_verbs()["help"](topic="quantize")  # type: ignore[call-arg]
    assert read_line("quantize --help", {}).verb == page
    assert read_line("prune | quantize -h", {}).verb == page
    assert read_line("help quantize", {}).verb == page


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("quantise", ["a verb or technique", "'quantise'", "did you mean 'quantize'"]),
        ("prune | compare", ["a technique", "'compare'"]),
        ("prune |", ["a technique on each side of |"]),
        ("use net | quantize", ["use on a line of its own"]),
        ("quantize --max-drp 1%", ["an option of quantize", "--max-drp", "'--max-drop'"]),
        ("prune --seed 1 | quantize --seed 2", ["--seed once", "again after quantize"]),
        ("quantize --runtime a --runtimes b", ["--runtimes once"]),
        ("quantize --runtimes onnxrt", ["a runtime among", "'onnxrt'", "did you mean 'onnxruntime'"]),
        ("quantize --threads 0", ["--threads of at least 1", "came: 0"]),
        ("quantize --measure quik", ["--measure among quick, full", "did you mean 'quick'"]),
        ("quantize -o 8q", ["-o with a variable's name", "'8q'"]),
        ("quantize -o class", ["-o with a variable's name", "'class'"]),
        ("quantize --valid valid_d", ["a variable of this notebook", "'valid_d'", "did you mean 'valid_dl'"]),
        ("quantize --metric acuracy", ["'acuracy', which is not defined", "'accuracy'"]),
        ("quantize net", ["options after quantize", "'net'"]),
        ("use net net", ["%optimize use MODEL", "'net'"]),
        ("use net --model net", ["use with one model"]),
        ("export", ["%optimize export NAME PATH", "no name and no path"]),
        ("show", ["%optimize show NAME", "no name"]),
        ("doctor now", ["%optimize doctor", "'now'"]),
        ("runs --max-drop 1%", ["an option of runs", "--max-drop"]),
    ],
)
def test_a_line_that_cannot_be_read_says_why(line: str, words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        read_line(line, NAMES)
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.word)
def test_every_verb_and_technique_declares_itself(kind: type[Verb | Technique]) -> None:
    assert kind.word
    assert kind.summary
    for option in options_of(kind).values():
        assert option.help, f"{kind.word} {option.flag} has no help"
    text = repr(page_of(kind))
    for option in line_options(kind).values():
        assert option.flag in text or option.name.upper() in text
        assert option.help in text
    for sheet in page_of(kind).sheets:
        assert "<script" not in sheet.html()
    assert isinstance(page_of(kind), HelpPage)


@pytest.mark.parametrize("kind", all_techniques().values(), ids=lambda kind: kind.word)
def test_every_option_of_every_technique_takes_its_default(kind: type[Technique]) -> None:
    for option in options_of(kind).values():
        words = option.write(option.default)
        if option.default is None:
            continue
        (step,) = read_line(" ".join([kind.word, *words]), {}).request.recipe.techniques
        assert getattr(step, option.name) == option.default
        if is_flag(option.hint):
            (step,) = read_line(f"{kind.word} --no-{option.flag[2:]}", {}).request.recipe.techniques
            assert getattr(step, option.name) is False


@pytest.mark.parametrize("verb", all_verbs().values(), ids=lambda verb: verb.word)
def test_every_example_of_every_verb_can_be_read(verb: type[Verb]) -> None:
    assert verb.examples
    for line in verb.examples:
        variables = dict.fromkeys(["model", "train_dl", "valid_dl", "x_valid", "y_valid"], 1)
        best = type("Held", (), {"best": lambda self, **limits: "the best"})()
        command = read_line(line.removeprefix("%optimize "), {**variables, "q8": best})
        assert command.verb is not None
        assert command.verb.word == verb.word


def test_an_option_given_as_none_unbinds() -> None:
    assert read_line("quantize --test None", NAMES).request.binding == {"test": None}
    assert options_of(Binding)["test"].default is None
