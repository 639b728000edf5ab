"""A sheet is aligned as text and safe as HTML."""

from __future__ import annotations

from nbopt.sheet import Sheet, bundle


def test_columns_are_aligned_and_the_last_is_free() -> None:
    sheet = Sheet("title", ("a", "long name"), (("1", "x"), ("22", "y" * 50)), "note")
    assert sheet.text().splitlines() == ["title", "a   long name", "1   x", f"22  {'y' * 50}", "note"]


def test_pairs_and_nothing() -> None:
    assert Sheet(rows=(("a", "b"),)).text() == "a  b"
    assert Sheet().text() == ""
    assert Sheet().html() == ""


def test_html_is_escaped_and_has_inline_styles_only() -> None:
    evil = "<img src=x onerror=alert(1)>"
    html = Sheet(evil, (evil,), ((evil,),), evil).html() + Sheet(rows=((evil, evil),)).html()
    assert "<img" not in html
    for forbidden in ("<script", "<style", "<svg", "class=", "onclick"):
        assert forbidden not in html
    assert 'scope="col"' in html
    assert 'scope="row"' in html


def test_a_bundle_of_several() -> None:
    shown = bundle([Sheet("one"), Sheet("two")])
    assert shown["text/plain"] == "one\n\ntwo"
    assert "one" in shown["text/html"]
