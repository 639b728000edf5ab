"""Forms of ipywidgets, core controls only: made from the fields of a declaration, each with its help beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any

import ipywidgets as w

from nbopt.jupyter.fields import Field, Filled, fields_of
from nbopt.recipe.names import Namespace
from nbopt.techniques import all_techniques

CONTROL = "24em"
"""Width of a control with its label; it gives way where there is less room."""
LABEL = {"description_width": "10.5em"}
_HELP = "opacity:.75;font-size:12px;line-height:1.35;margin:3px 0 0 8px"
_FAULT = "color:#e0483e;font-size:12px;line-height:1.35;margin:3px 0 0 8px"


def text_html(text: str, style: str = "") -> str:
    """Return plain text as HTML, escaped."""
    return f'<div style="{style}">{escape(text)}</div>'


def code_html(lines: Iterable[str]) -> str:
    """Return lines as code, escaped."""
    body = "\n".join(escape(line) for line in lines)
    style = "margin:0;padding:4px 8px;font-size:12px;white-space:pre-wrap;line-height:1.5"
    return f'<pre style="{style}"><code>{body}</code></pre>'


def control_layout(width: str = CONTROL) -> w.Layout:
    """Return the layout of a control: as wide as said, and never wider than its place."""
    return w.Layout(width=width, max_width="100%", min_width="0")


def button(text: str, tooltip: str, style: str = "") -> Any:
    """Return a button."""
    # No icon: its letter of a private font becomes part of what a screen reader calls the button.
    return w.Button(description=text, tooltip=tooltip, button_style=style, layout=w.Layout(width="auto"))


class Fold:
    """Show and hide something by a button.

    ipywidgets' own Accordion can't be opened by keys: Tab passes its titles by.

    Args:
        title: What is folded.
        children: The widgets in it.
        opened: Whether it is open at first.
    """

    def __init__(self, title: str, children: Iterable[w.Widget], *, opened: bool = False) -> None:
        self.button = w.ToggleButton(value=opened, layout=w.Layout(width="auto", max_width="100%"))
        self.button.layout.align_self = "flex-start"
        edge = {"border_left": "2px solid #80889055", "padding": "2px 0 6px 8px", "margin": "0 0 4px 4px"}
        self.body = w.VBox(list(children), layout=w.Layout(**edge))
        self.box = w.VBox([self.button, self.body], layout=w.Layout(width="100%"))
        self.title = title
        self.button.observe(lambda _: self._turn(), "value")
        self._turn()

    def name(self, title: str) -> None:
        """Change what is said to be folded."""
        self.title = title
        self._turn()

    def _turn(self) -> None:
        opened = self.button.value
        self.button.description = f"{chr(0x25BE if opened else 0x25B8)} {self.title}"
        self.button.tooltip = f"{'hide' if opened else 'show'} {self.title}"
        self.body.layout.display = "" if opened else "none"


class Form:
    """Hold the controls of one technique, or of one group of shared options.

    Args:
        word: The technique, "" for a group.
        owner: The dataclass that declares the options.
        names: The notebook's variables, which a text may name.
        changed: Called at each change.
        leave_out: Options that are chosen elsewhere.
    """

    def __init__(
        self,
        word: str,
        owner: type,
        names: Namespace,
        changed: Callable[[], None],
        leave_out: Iterable[str] = (),
    ) -> None:
        self.word = word
        self._owner, self._leave_out = owner, tuple(leave_out)
        self._usual: dict[str, Any] = {}
        self.fields = fields_of(owner, leave_out)
        self._names, self._changed = names, changed
        self._controls: dict[str, w.Widget] = {}
        self._beside: dict[str, w.HTML] = {}
        rows = [self._row(field) for field in self.fields]
        self.box = w.VBox(rows, layout=w.Layout(width="100%"))

    @property
    def values(self) -> dict[str, str]:
        """Return what stands in the controls, as text."""
        return {name: str(control.value) for name, control in self._controls.items()}

    @property
    def filled(self) -> Filled:
        """Return the form as it is filled now."""
        return Filled(self.word, self.fields, self.values)

    @property
    def faults(self) -> list[str]:
        """Return what is wrong in it."""
        values = self.values
        return [fault for field in self.fields if (fault := field.fault(values[field.name], self._names))]

    def start_with(self, usual: Mapping[str, Any]) -> None:
        """Have what nobody has changed show what lines take now that do not say otherwise, by option."""
        if usual == self._usual:
            return
        self._usual = dict(usual)
        before, self.fields = self.fields, fields_of(self._owner, self._leave_out, usual)
        for old, new in zip(before, self.fields, strict=True):
            control = self._controls[new.name]
            if str(control.value) == old.start != new.start:
                control.value = new.start

    def fill(self, values: Mapping[str, str]) -> None:
        """Put texts into the controls."""
        for name, text in values.items():
            self._controls[name].value = text

    def _row(self, field: Field) -> w.HBox:
        control = _control_of(field)
        beside = w.HTML(self._help(field), layout=w.Layout(flex="1 1 20em", min_width="min(14em, 100%)"))
        self._controls[field.name], self._beside[field.name] = control, beside
        control.observe(lambda _: self._check(field.name), "value")
        return w.HBox([control, beside], layout=w.Layout(flex_flow="row wrap", width="100%"))

    def _check(self, name: str) -> None:
        field = next(each for each in self.fields if each.name == name)
        fault = field.fault(str(self._controls[field.name].value), self._names)
        self._beside[field.name].value = text_html(fault, _FAULT) if fault else self._help(field)
        self._changed()

    @staticmethod
    def _help(field: Field) -> str:
        hint = f" [{field.hint}]" if field.hint else ""
        return text_html(f"{field.option.help}{hint}", _HELP)


def _control_of(field: Field) -> Any:
    label = field.option.flag.lstrip("-").replace("-", " ") if field.name != "o" else "result in variable"
    shared = {
        "description": label,
        "tooltip": field.option.help,
        "style": LABEL,
        "layout": control_layout(),
    }
    if field.kind == "flag":
        return w.Checkbox(value=field.start == "True", indent=True, **shared)
    if field.kind == "choice":
        options = [(choice or "as usual", choice) for choice in field.choices]
        return w.Dropdown(options=options, value=field.start, **shared)
    return w.Text(value=field.start, placeholder=field.hint, continuous_update=True, **shared)


class Step:
    """Hold one step of a recipe: which technique, and its form, folded away at first.

    Args:
        word: The technique that it begins with, "" for none.
        names: The notebook's variables.
        changed: Called at each change.
    """

    def __init__(self, word: str, names: Namespace, changed: Callable[[], None]) -> None:
        self._names, self._changed = names, changed
        self._forms: dict[str, Form] = {}
        techniques = all_techniques()
        self.choice = w.Dropdown(
            options=[("none: measure the model as it is", ""), *((each, each) for each in techniques)],
            value=word,
            description="technique",
            style=LABEL,
            layout=control_layout(),
        )
        self.summary = w.HTML(layout=w.Layout(flex="1 1 20em"))
        self.options = Fold("options", [])
        self.box = w.VBox(
            [w.HBox([self.choice, self.summary], layout=w.Layout(flex_flow="row wrap")), self.options.box],
            layout=w.Layout(width="100%"),
        )
        self.choice.observe(lambda _: self._choose(), "value")
        self._choose()

    @property
    def form(self) -> Form | None:
        """Return the chosen technique's form, None where none is chosen."""
        return self._forms.get(self.choice.value)

    def _choose(self) -> None:
        word = self.choice.value
        if not word:
            self.options.box.layout.display = "none"
            self.summary.value = ""
        else:
            technique = all_techniques()[word]
            if word not in self._forms:
                self._forms[word] = Form(word, technique, self._names, self._changed)
            self.options.body.children = (self._forms[word].box,)
            self.options.name(f"options of {word}")
            self.options.box.layout.display = ""
            self.summary.value = text_html(technique.summary, _HELP)
        self._changed()
