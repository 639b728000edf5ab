"""A recipe reads from a line and writes itself as one, for every technique found."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, get_args, get_origin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nbopt.errors import NbOptError, OptionError
from nbopt.options import option
from nbopt.recipe import Recipe, technique_text
from nbopt.recipe.grammar import Option, options_of
from nbopt.recipe.values import kinds_of, read_value
from nbopt.technique import Technique
from nbopt.techniques import all_techniques


@dataclass(frozen=True)
class Shrink(Technique):
    """Use every kind of option that a technique may declare."""

    word: ClassVar[str] = "shrink"
    summary: ClassVar[str] = "a technique of the tests"

    share: float = option(0.5, "Share.", low=0.0, high=1.0, open_ends=True)
    steps: int = option(3, "Steps.", low=1, high=100)
    mode: str = option("fast", "Mode.", choices=("fast", "slow", "none"))
    hard: bool = option(False, "Hard.")
    soft: bool = option(True, "Soft.")
    wait: float | None = option(None, "Wait.", low=0.0, unit="s")
    room: int | None = option(None, "Room.", low=0, unit="bytes")
    limit: float | None = option(None, "Limit.", low=0.0, unit="ms")
    layers: tuple[str, ...] = option((), "Layers.")
    rates: float | tuple[float, ...] = option(0.1, "Rates.")
    scheme: Literal["a", "b"] = option("a", "Scheme.")
    title: str = option("", "Title.")
    tri: bool | None = option(None, "Three states.")
    teacher: Any = option(None, "Any object.")


@pytest.fixture(autouse=True)
def _shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    found = all_techniques()
    monkeypatch.setattr(found, "_names", (*found, "shrink"))
    monkeypatch.setitem(sys.modules, "nbopt.techniques.shrink", SimpleNamespace(Shrink=Shrink))


def one(text: str, names: Any = None) -> Any:
    (step,) = Recipe.parse(text, names).techniques
    return step


def test_the_words_of_a_pipeline() -> None:
    recipe = Recipe.parse("shrink --share 0.3 --hard | shrink --mode slow", seed=7)
    assert recipe.words == "shrink+shrink"
    assert recipe.seed == 7
    assert recipe.text() == "shrink --share 0.3 --hard | shrink --mode slow"
    assert recipe.label == "shrink --share 0.3 --hard + shrink --mode slow"
    assert Recipe.parse(recipe.text(), seed=7) == recipe


def test_no_technique_is_the_baseline() -> None:
    assert Recipe() == Recipe.parse("") == Recipe.parse("baseline")
    assert (Recipe().text(), Recipe().words, Recipe().label) == ("baseline", "baseline", "baseline")


def test_of_joins_techniques_recipes_and_text() -> None:
    recipe = Recipe.of(Shrink(share=0.2), Recipe((Shrink(steps=4),), seed=9), "shrink --hard")
    assert recipe.text() == "shrink --share 0.2 | shrink --steps 4 | shrink --hard"
    assert recipe.seed == 9
    assert Recipe.of(recipe, seed=0).seed == 0
    with pytest.raises(OptionError, match="a technique, a recipe or its text"):
        Recipe.of(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("--share 1%", "share", 0.01),
        ("--share 7%", "share", 0.07),
        ("--share 1pt", "share", 0.01),
        ("--share=.25", "share", 0.25),
        ("--share 2e-1", "share", 0.2),
        ("--steps 1e1", "steps", 10),
        ("--steps {2 + 3}", "steps", 5),
        ("--steps 1_0", "steps", 10),
        ("--wait 10m", "wait", 600.0),
        ("--wait 90s", "wait", 90.0),
        ("--wait 2h", "wait", 7200.0),
        ("--wait 250ms", "wait", 0.25),
        ("--wait 4", "wait", 4.0),
        ("--wait None", "wait", None),
        ("--limit 2ms", "limit", 2.0),
        ("--limit 500us", "limit", 0.5),
        ("--limit 3", "limit", 3.0),
        ("--room 1MB", "room", 1_000_000),
        ("--room 500kB", "room", 500_000),
        ("--room 1MiB", "room", 1 << 20),
        ("--room 1.5KiB", "room", 1536),
        ("--hard", "hard", True),
        ("--no-soft", "soft", False),
        ("--hard true", "hard", True),
        ("--soft=false", "soft", False),
        ("--tri", "tri", True),
        ("--no-tri", "tri", False),
        ("--mode slow", "mode", "slow"),
        ("--mode none", "mode", "none"),
        ("--mode {'slow'}", "mode", "slow"),
        ("--scheme b", "scheme", "b"),
        ("--layers a,b.c", "layers", ("a", "b.c")),
        ("--layers a", "layers", ("a",)),
        ("--layers 'a,b',c", "layers", ("a,b", "c")),
        ("--layers [a, b]", "layers", ("a", "b")),
        ("--layers ()", "layers", ()),
        ("--rates 0.5", "rates", 0.5),
        ("--rates 10%,20%", "rates", (0.1, 0.2)),
        ("--rates (0.5,)", "rates", (0.5,)),
        ('--title "a | b"', "title", "a | b"),
        ('--title="it\'s"', "title", "it's"),
        ("--title it's", "title", "it's"),
        ("--title 'a -- {b'", "title", "a -- {b"),
        ("--title plain", "title", "plain"),
        (r"--title 'C:\new'", "title", r"C:\new"),
        ("--teacher net", "teacher", "the net"),
        ("--teacher box.x", "teacher", 5),
        ("--teacher {net + '|'}", "teacher", "the net|"),
        ("--teacher {[n for n in [net]][0]}", "teacher", "the net"),
        ("--teacher 'net'", "teacher", "net"),
        ("--teacher 3", "teacher", 3),
        ("--teacher net,net", "teacher", ("the net", "the net")),
        ("--teacher (net, net)", "teacher", ("the net", "the net")),
        ("--share s", "share", 0.75),
        ("--mode m", "mode", "slow"),
        ("--layers names", "layers", ("p", "q")),
        ("--rates r", "rates", (0.25, 0.5)),
        ("--share 0.2 # a comment | not a bar", "share", 0.2),
    ],
)
def test_a_value_reads_by_its_declaration(text: str, field: str, value: object) -> None:
    box = types.SimpleNamespace(x=5)
    names = {
        "net": "the net",
        "box": box,
        "s": np.float64(0.75),
        "m": "slow",
        "names": ["p", "q"],
        "r": [0.25, 0.5],
    }
    read = getattr(one(f"shrink {text}", names), field)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shrnk", ["a technique among", "'shrnk'", "did you mean 'shrink'"]),
        ("shrink --shar 1", ["an option of shrink", "--shar", "did you mean '--share'"]),
        ("shrink --steps", ["a value after shrink --steps", "the end of the line", "--steps 3"]),
        ("shrink --steps --hard", ["a value after shrink --steps", "--hard"]),
        ("shrink --steps=", ["a value after shrink --steps"]),
        ("shrink --mode --hard", ["--mode fast", "fast, slow, none"]),
        ("shrink --steps 2 --steps 3", ["shrink --steps once"]),
        ("shrink --soft --no-soft", ["shrink --soft once"]),
        ("shrink --steps many", ["shrink --steps as a whole number", "'many'"]),
        ("shrink --steps 2.5", ["shrink --steps as a whole number", "'2.5'"]),
        ("shrink --steps 50%", ["shrink --steps as a whole number"]),
        ("shrink --steps {'a'}", ["shrink --steps as a whole number", "'a', a str"]),
        ("shrink --wait 3parsec", ["shrink --wait as a number", "units: us, ms, s, m, min, h"]),
        ("shrink --share 10m", ["shrink --share as a number", "'10m'", "units: %, pt"]),
        ("shrink --share 0", ["between 0 and 1, both excluded", "came: 0"]),
        ("shrink --share 1.5", ["between 0 and 1", "came: 1.5"]),
        ("shrink --mode slwo", ["fast, slow, none", "'slwo'", "did you mean 'slow'"]),
        ("shrink --scheme c", ["a, b", "'c'"]),
        ("shrink --hard=maybe", ["shrink --hard as True or False", "'maybe'"]),
        ("shrink --no-hard=true", ["--no-hard without a value"]),
        ("shrink 0.5", ["options after shrink", "'0.5'", "--share"]),
        ("shrink | ", ["a technique on each side of |"]),
        ("| shrink", ["a technique on each side of |"]),
        ("shrink || shrink", ["a technique on each side of |"]),
        ("shrink --title 'a", ["the ' that closes", "the end of the line"]),
        ("shrink --share {0.1", ["the } that closes", "the end of the line"]),
        ("shrink --teacher nett", ["a variable of this notebook", "'nett', which is not defined", "'net'"]),
        ("shrink --teacher zzz", ["'zzz', which is not defined", "run the cell that defines it"]),
        ("shrink --teacher {1 / 0}", ["an expression that has a value", "ZeroDivisionError"]),
        ("shrink --teacher {1 +}", ["an expression that has a value", "SyntaxError"]),
        ("shrink --teacher a-b", ["a name, a literal or {python expression}", "{a-b}"]),
    ],
)
def test_a_line_that_cannot_be_read_says_why(text: str, words: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        Recipe.parse(text, {"net": 1})
    for word in words:
        assert word in caught.value.message


def test_expressions_need_variables() -> None:
    with pytest.raises(OptionError, match="expressions need a notebook's variables"):
        Recipe.parse("shrink --share {__import__('os').getpid()}")


def test_expressions_leave_no_name_behind() -> None:
    names = {"a": 1}
    assert one("shrink --teacher {(b := a)}", names).teacher == 1
    assert names == {"a": 1}


def test_a_function_may_resolve() -> None:
    assert one("shrink --steps {a} --teacher b", {"a": 4, "b": "B"}.__getitem__) == Shrink(steps=4, teacher="B")


def body(source: str) -> object:
    return SimpleNamespace(source=source)


@pytest.mark.parametrize(
    ("one", "other", "text"),
    [
        (object(), object(), "{object}"),
        (np.zeros((3, 4)), np.zeros((3, 5)), "{ndarray of 3 x 4}"),
        (nn.Linear(100, 20), nn.Linear(100, 21), "{Linear of 2,020 weights}"),
        (nn.LazyLinear(3), nn.LazyLinear(4), "{LazyLinear}"),
        (len, sum, "{builtin_function_or_method len}"),
        (body("a = 1"), body("a = 2"), "{SimpleNamespace 575af5}"),
    ],
)
def test_an_object_without_text_is_written_by_its_type_and_what_tells_it_from_others(
    one: object, other: object, text: str
) -> None:
    assert technique_text(Shrink(teacher=one)) == f"shrink --teacher {text}"
    plain = text.count(" ") == 0
    assert (technique_text(Shrink(teacher=other)) == technique_text(Shrink(teacher=one))) == plain


def values_for(item: Option) -> st.SearchStrategy[Any]:
    """Return valid values of an option, from its declaration alone."""
    meta = item.spec.metadata
    if item.choices:
        return st.sampled_from(item.choices)
    low, high, shut = meta.get("low"), meta.get("high"), bool(meta.get("open"))
    made: list[st.SearchStrategy[Any]] = [st.just(item.default)]
    for kind in kinds_of(item.hint):
        if kind is bool:
            made.append(st.booleans())
        elif kind is int:
            made.append(st.integers(-1000 if low is None else int(low), 10**9 if high is None else int(high)))
        elif kind is float:
            # Of a range that is open at its ends, only an end that there is can be left out.
            ends = {"exclude_min": shut and low is not None, "exclude_max": shut and high is not None}
            made.append(st.floats(low, high, **ends, allow_nan=False, allow_infinity=False))
        elif kind is str:
            made.append(st.text(max_size=12))
        elif get_origin(kind) is tuple:
            items = {
                str: st.text(max_size=6),
                float: st.floats(allow_nan=False, allow_infinity=False),
                int: st.integers(),
            }
            part = items.get(get_args(kind)[0])
            made += [st.lists(part, max_size=4).map(tuple)] if part is not None else []
        elif get_origin(kind) is Literal:
            made.append(st.sampled_from(get_args(kind)))
    return st.one_of(made)


@settings(max_examples=150)
@given(data=st.data())
def test_every_technique_found_makes_the_round_trip(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(all_techniques().values(), key=lambda found: found.word)))
    options = options_of(kind)
    chosen = data.draw(st.sets(st.sampled_from(sorted(options)), max_size=6)) if options else set()
    values = {name: data.draw(values_for(options[name])) for name in sorted(chosen)}
    try:
        step = kind(**values)
    except NbOptError:
        return  # options that exclude each other
    recipe = Recipe((step, step))
    again = Recipe.parse(recipe.text())
    assert again == recipe
    assert again.text() == recipe.text()


@settings(max_examples=300)
@given(st.text(alphabet="shrink -=|{}[]()'\"\\,#%.0123456789abxyz\n", max_size=40))
def test_any_line_is_read_or_refused_with_a_message(text: str) -> None:
    try:
        Recipe.parse(f"shrink {text}", {"a": 1})
    except OptionError:
        return


@pytest.mark.parametrize("seed", [-1, 0.5, "0"])
def test_a_seed_that_no_generator_takes_is_refused(seed: Any) -> None:
    with pytest.raises(OptionError, match="a seed of 0 or more"):
        Recipe.of("prune", seed=seed)
    assert Recipe.of("prune", seed=np.int64(3)).seed == 3


def test_a_word_of_a_list_is_no_variable_that_holds_no_list() -> None:
    names = {"torch": types, "mine": ["torch", "keras"], "text": "openvino,litert"}
    words = tuple[str, ...]
    assert read_value("torch", words, names) == ("torch",), "a notebook that imports torch can name the runtime"
    assert read_value("torch,keras", words, names) == ("torch", "keras")
    assert read_value("mine", words, names) == ("torch", "keras")
    assert read_value("text", words, names) == ("openvino", "litert")


@pytest.mark.parametrize("text", ["1_", "1e999", "1e999s", "._"])
def test_what_only_looks_like_a_number_is_told(text: str) -> None:
    with pytest.raises(OptionError, match="number"):
        read_value(text, float, unit="s")


def test_a_dict_is_a_value() -> None:
    assert read_value('{"lr": 0.1}', Any | None) == {"lr": 0.1}
    assert read_value('{"lr": rate, **more}', Any | None, {"rate": 0.2, "more": {"n": 1}}) == {"lr": 0.2, "n": 1}
    assert read_value("{}", Any | None) == {}
    assert read_value("{{'a': 1}}", Any | None, {}) == {"a": 1}
    assert read_value("{0.1, 0.2}", tuple[float, ...], {}) == (0.1, 0.2)
