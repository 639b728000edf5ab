"""`%config NbOpt`: what a line takes that does not say otherwise, from the declaration that lines are read by."""

from __future__ import annotations

import warnings
from typing import Any

from traitlets import TraitType
from traitlets.config import Config, Configurable

from nbopt.errors import NbOptWarning, OptionError
from nbopt.jupyter.options import Running
from nbopt.recipe.grammar import Option, options_of


class Setting(TraitType):
    """Be a default of one option, checked as the option is.

    Args:
        option: The option.
    """

    def __init__(self, option: Option) -> None:
        self._option = option
        super().__init__(option.default, help=option.help, config=True)

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the value; a text is read as a line's word is.

        Raises:
            OptionError: It can't be used.
        """
        name = self._option.name
        if isinstance(value, str):
            value = self._option.read(value, where=f"NbOpt.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        return getattr(Running(**{name: value}), name)


class _Settings(Configurable):
    """Take what can be used, and tell of the rest: IPython would only log what is raised here."""

    def _load_config(self, cfg: Any, section_names: Any = None, traits: Any = None) -> None:
        known = self.traits(config=True)
        mine = self._find_my_config(cfg)
        for name in [name for name in mine if name in known]:
            try:
                known[name].validate(self, mine[name])
            except OptionError as error:
                warnings.warn(f"NbOpt.{name} stays {getattr(self, name)!r}\n{error}", NbOptWarning, stacklevel=2)
                del mine[name]
        super()._load_config(Config({type(self).__name__: mine}), section_names, traits)


def declared() -> type[Configurable]:
    """Return the class that `%config` lists: a trait for each option of running and measuring."""
    body: dict[str, Any] = {name: Setting(option) for name, option in options_of(Running).items()}
    body["__doc__"] = "Defaults of %optimize: what a line takes that does not say otherwise."
    body["__module__"] = __name__
    return type("NbOpt", (_Settings,), body)


def chosen(settings: Configurable) -> dict[str, Any]:
    """Return the defaults that are not as declared, by option."""
    options = options_of(Running)
    found = {name: getattr(settings, name) for name in options}
    return {name: value for name, value in found.items() if value != options[name].default}
