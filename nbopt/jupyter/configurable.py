"""What stands for `%config NbOpt` until it is asked for: `%load_ext nbopt` shall not wait for what it is made of."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class LazySettings:
    """Be the settings, which are made when something of them is first looked at.

    `%config` and its completion ask each configurable for its `__class__`, and then for its traits.

    Args:
        shell: The IPython shell, whose configuration files may set them.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    @cached_property
    def _settings(self) -> Any:
        from nbopt.jupyter.defaults import declared

        return declared()(parent=self._shell)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings, name)

    def chosen(self) -> dict[str, Any]:
        """Return the defaults that are not as declared, by option."""
        from nbopt.jupyter.defaults import chosen

        return chosen(self._settings)
