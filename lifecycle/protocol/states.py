"""The names of states: dots nest one in another."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SEPARATOR", "groups", "nested"]

SEPARATOR = "."
"""What stands between a group of states and a state in it."""


@lru_cache(maxsize=4096)
def groups(state: str) -> tuple[str, ...]:
    """The groups that a state is in, outermost first.

    Examples:
        >>> groups("session.batch.started")
        ('session', 'session.batch')
    """
    parts = state.split(SEPARATOR)
    return tuple(SEPARATOR.join(parts[:end]) for end in range(1, len(parts)))


def nested(states: Iterable[str]) -> list[Any]:
    """Dotted names as the nested dictionaries that `transitions` takes."""
    tree: dict[str, Any] = {}
    for state in states:
        branch = tree
        for part in state.split(SEPARATOR):
            branch = branch.setdefault(part, {})

    def children(branch: dict[str, Any]) -> list[Any]:
        return [{"name": name, "children": children(below)} if below else name for name, below in branch.items()]

    return children(tree)
