"""What can go wrong when a picture is made."""

from __future__ import annotations

from lifecycle.errors import LifecycleError

__all__ = ["RenderError"]


class RenderError(LifecycleError):
    """No program that can draw was found, or it failed.

    Examples:
        >>> import os
        >>> from unittest import mock
        >>> from lifecycle.diagram import find_program
        >>> with mock.patch.dict(os.environ, LIFECYCLE_DOT="no-such-program"):
        ...     try:
        ...         find_program()
        ...     except RenderError as error:
        ...         print(error)
        LIFECYCLE_DOT is 'no-such-program', which is not a program; name the `dot` of Graphviz, or unset it
    """
