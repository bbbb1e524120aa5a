"""One legal move of a protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifecycle.protocol.rules import Guard, Update

__all__ = ["Transition"]


@dataclass(frozen=True, slots=True)
class Transition:
    """One legal move.

    Args:
        source: The state it leaves.
        event: The event that makes it, as a member or in any of its spellings.
        target: The state it enters; may be `source`.
        guard: What must hold besides, instead of what the event always needs.
        update: What it counts, instead of what the event always counts.

    Examples:
        >>> Transition("session.ready", "finalize", "finalized").target
        'finalized'
    """

    source: str
    event: Any
    target: str
    guard: Guard | None = None
    update: Update | None = None
