"""The one door through which values draw and print themselves.

What draws and prints stands above the values in the house, so it is looked up by name when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Drawable", "Printable"]

DRAWING = "lifecycle.diagram.shown"
"""The module that draws values."""

PRINTING = "lifecycle.trace.text"
"""The module that writes values as text."""


class Drawable:
    """A value that is shown as a diagram: in a notebook, and in formatted text."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(import_module(DRAWING).formatted(self, spec))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        bundle: dict[str, Any] = import_module(DRAWING).mimebundle(self)
        return bundle


class Printable:
    """A value that prints as text for people."""

    __slots__ = ()

    def __str__(self) -> str:
        return str(import_module(PRINTING).to_text(self))
