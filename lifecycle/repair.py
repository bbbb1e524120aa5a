"""The cheapest explanation of an event that is not legal, for a run that must go on.

Either events are missing before it, or it is itself superfluous. A live run cannot look ahead, so the first choice may
be wrong. The other explanations are followed alongside, and when the chosen one meets a further violation, the one with
the fewest violations so far takes over. The number of states bounds the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lifecycle.protocol import Protocol

LONGEST_INSERTION = 3
"""Events that may be missing at one place before dropping the event is thought likelier."""

Cost = tuple[int, int, bool]
"""Violations, then events inserted or dropped, then whether the last event was dropped. The least is the likeliest."""


class Repair(NamedTuple):
    """How a run goes on after a violation.

    Attributes:
        inserted: The events that are taken to be missing; they count as if they had come.
        source: The state in which the illegal event is taken; None if it is taken to be superfluous.
        state: The state after it.
    """

    inserted: tuple[Any, ...]
    source: str | None
    state: str


class Explanations:
    """The explanations of a run that has had a violation: for each state the run may be in, what that costs.

    Args:
        protocol: The order that the run should obey.
    """

    __slots__ = ("_costs", "_protocol")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._costs: dict[str, Cost] = {}

    def __bool__(self) -> bool:
        """Whether there is another explanation to follow than the chosen one."""
        return len(self._costs) > 1

    def follow(self, state: str, event: Any) -> None:
        """Take a legal event, which led to `state`, through all explanations."""
        self._keep(state, self._step(event))

    def repair(self, state: str, event: Any) -> Repair:
        """Choose how to go on at an event that is not legal in `state`."""
        costs = self._step(event) if self else self._step_from(state, (0, 0, False), event)
        chosen = min(costs, key=costs.__getitem__)
        dropped = costs[chosen][2]
        self._keep(chosen, costs)
        if dropped:
            return Repair((), None, chosen)
        for path, reached in self._protocol.walk(state):
            if self._protocol.target(reached, event) == chosen:
                return Repair(path, reached, chosen)
        # Another explanation takes over, and what it says cannot be reached from here by any events.
        entries = (t.source for t in self._protocol.transitions if (t.event, t.target) == (event, chosen))
        return Repair((), next(entries), chosen)

    def _keep(self, chosen: str, costs: dict[str, Cost]) -> None:
        """Forget what has had more violations than the chosen explanation; that comes first, and so wins a tie."""
        most = costs[chosen][0]
        others = {state: cost for state, cost in costs.items() if cost[0] <= most}
        self._costs = {chosen: costs[chosen], **others}

    def _step(self, event: Any) -> dict[str, Cost]:
        costs: dict[str, Cost] = {}
        for state, cost in self._costs.items():
            for reached, total in self._step_from(state, cost, event).items():
                costs[reached] = min(total, costs.get(reached, total))
        return costs

    def _step_from(self, state: str, cost: Cost, event: Any) -> dict[str, Cost]:
        violations, edits, _ = cost
        legal = self._protocol.target(state, event)
        if legal is not None:
            return {legal: (violations, edits, False)}
        costs: dict[str, Cost] = {}
        for path, reached in self._protocol.walk(state):
            target = self._protocol.target(reached, event)
            if target is not None:
                length = len(path) + (len(path) > LONGEST_INSERTION)
                costs.setdefault(target, (violations + 1, edits + length, False))
        dropped = (violations + 1, edits + LONGEST_INSERTION + 1, True)
        costs[state] = min(dropped, costs.get(state, dropped))
        return costs
