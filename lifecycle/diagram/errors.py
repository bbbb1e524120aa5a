"""What can go wrong when a picture is made."""

from __future__ import annotations

from lifecycle.errors import LifecycleError

__all__ = ["RenderError"]


class RenderError(LifecycleError):
    """No program that can draw was found, or it failed."""
