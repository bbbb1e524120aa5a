"""Whether a run with violations is really several runs whose events are interleaved, as when ranks share a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifecycle.protocol import Protocol

__all__ = ["Interleaving"]

MOST_RUNS = 8
"""Runs that may be interleaved."""

MOST_CONFIGURATIONS = 256
"""Ways to share out the events that are followed; when there are more, none is."""


class Interleaving:
    """Follows every way to share out the events among several runs.

    Args:
        protocol: The order that each of the runs should obey.
        state: Where the run stood when an event that begins another came.
        event: That event.

    Examples:
        >>> from lifecycle import EventType, protocols
        >>> two = Interleaving(protocols.TRAINING, "session.ready", EventType.INITIALIZE)
        >>> two.take(EventType.FINALIZE)
        >>> two.take(EventType.FINALIZE)
        >>> two.runs()
        2
    """

    __slots__ = ("_configurations", "_protocol")

    def __init__(self, protocol: Protocol, state: str, event: Any) -> None:
        self._protocol = protocol
        self._configurations: set[tuple[str, ...]] = {(state,)}
        self.take(event)
        self._configurations = {each for each in self._configurations if len(each) > 1}

    def take(self, event: Any) -> None:
        """Take the next event."""
        target = self._protocol.target
        begun = target(self._protocol.initial, event)
        after: set[tuple[str, ...]] = set()
        for states in self._configurations:
            for state in set(states):
                reached = target(state, event)
                if reached is not None:
                    others = list(states)
                    others.remove(state)
                    after.add(tuple(sorted([*others, reached])))
            if begun is not None and len(states) < MOST_RUNS:
                after.add(tuple(sorted([*states, begun])))
        self._configurations = after if len(after) <= MOST_CONFIGURATIONS else set()

    def runs(self) -> int:
        """The fewest complete runs that explain all events; 0 if none do."""
        final = set(self._protocol.final)
        return min((len(states) for states in self._configurations if final.issuperset(states)), default=0)
