"""A run, as far as a picture shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Overlay", "Rejection", "Tally"]


POSITIONS_SHOWN = 5
"""Positions of a rejected event that are drawn; the tooltip and the words have all."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a transition was taken, and how long its handlers ran in all, in seconds.

    Examples:
        >>> print(Tally(6, 1.2))
        6x 1.2 s, 200 ms each
        >>> print(Tally())
        never
    """

    count: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.count:
            return "never"
        often = f"{self.count:,}x"
        if not self.seconds:
            return often
        each = f", {duration(self.seconds / self.count)} each" if self.count > 1 else ""
        return f"{often} {duration(self.seconds)}{each}"


NEVER = Tally()


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    Examples:
        >>> duration(0.00123), duration(75), duration(9000)
        ('1.23 ms', '75 s', '2.5 h')
    """
    for least, unit in (3600.0, "h"), (120.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"):
        if seconds >= least:
            scale = 60.0 if unit == "min" else least
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


@dataclass(frozen=True, slots=True)
class Rejection:
    """An event that was rejected in a state.

    Attributes:
        state: The state.
        event: Name of the event.
        positions: Positions in the run, the first event is 1.

    Examples:
        >>> rejection = Rejection("session.ready", "BATCH_END", (2, 7))
        >>> rejection.event, rejection.places()
        ('BATCH_END', 'events 2, 7')
    """

    state: str
    event: str
    positions: tuple[int, ...]

    def places(self, most: int = POSITIONS_SHOWN) -> str:
        """The positions in words.

        Examples:
            >>> Rejection("open", "BATCH_START", (3, 9, 12)).places(2)
            'events 3, 9 and 1 more'
        """
        shown = ", ".join(map(str, self.positions[:most]))
        rest = len(self.positions) - most
        return f"event{'s' * (len(self.positions) > 1)} {shown}" + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True, slots=True)
class Overlay:
    """A run, as far as a picture shows it.

    Attributes:
        name: What the run is called, the file of a trace for one.
        verdict: How the run went, in a few words.
        current: The state that the run is in; empty if that is not known.
        tallies: For a state and the name of an event, how often and how long; None if nobody counted.
        visited: The states that the run has been in; None if nobody counted.
        rejections: The events that were rejected.
        failures: For a state and the name of an event, what its handler raised.

    Examples:
        >>> taken = {("created", "INITIALIZE"): Tally(1, 0.002)}
        >>> overlay = Overlay("a run", "incomplete", "session.ready", taken)
        >>> print(overlay.tally("created", "INITIALIZE"), overlay.tally("session.ready", "FINALIZE"), sep=", ")
        1x 2 ms, never
    """

    name: str
    verdict: str
    current: str
    tallies: Mapping[tuple[str, str], Tally] | None = None
    visited: frozenset[str] | None = None
    rejections: tuple[Rejection, ...] = ()
    failures: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])

    def tally(self, state: str, event: str) -> Tally | None:
        """How often and how long an event came in a state; None if nobody counted."""
        return None if self.tallies is None else self.tallies.get((state, event), NEVER)
