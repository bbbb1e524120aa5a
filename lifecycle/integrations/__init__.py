"""The session under the frameworks that people use, a module for each.

None of them is imported before its module here is.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["require"]


def require(module: str, install: str) -> Any:
    """Import a framework's module.

    Args:
        module: Its name.
        install: The command that installs it.

    Raises:
        ImportError: It is not there; the message has the command.

    Examples:
        >>> require("json", "a Python").dumps([])
        '[]'
        >>> require("no_such_framework", "pip install no-such-framework")
        Traceback (most recent call last):
        ...
        ImportError: no_such_framework is not installed: pip install no-such-framework
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        # What is missing may be something that the framework itself needs.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ImportError(f"{error.name} is not installed: {install}", name=error.name) from None
