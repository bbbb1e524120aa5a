"""What makes a table of states and transitions invalid."""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

from lifecycle.errors import UnknownEventError
from lifecycle.events import nearest, spellings
from lifecycle.protocol.machine import STATE_ATTRIBUTE
from lifecycle.protocol.states import SEPARATOR, groups
from lifecycle.protocol.transition import Transition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["ambiguities", "bad_states", "bad_transitions", "bad_vocabularies", "check_types", "dead_states"]


class ProtocolTable(Protocol):
    """The parts of a protocol that may be wrong."""

    @property
    def name(self) -> str: ...
    @property
    def states(self) -> Sequence[str]: ...
    @property
    def transitions(self) -> Sequence[Transition]: ...
    @property
    def initial(self) -> str: ...
    @property
    def final(self) -> Sequence[str]: ...
    @property
    def vocabularies(self) -> Sequence[type[enum.Enum]]: ...
    def event(self, event: str) -> Any:
        """The member for any spelling of an event."""
        ...


def check_types(table: ProtocolTable) -> None:
    """Refuse parts of the wrong type."""
    for vocabulary in table.vocabularies:
        if not {str, enum.Enum} <= set(getattr(vocabulary, "__mro__", ())):
            raise TypeError(f"a vocabulary must be a class like 'class Mine(str, Enum)', got {vocabulary!r}")
    for transition in table.transitions:
        if not isinstance(transition, Transition):  # pyright: ignore[reportUnnecessaryIsInstance] # untyped callers
            raise TypeError(f"transitions must be made of Transition, got {transition!r}")
    ends = (end for transition in table.transitions for end in (transition.source, transition.target))
    for name in (table.name, *table.states, table.initial, *table.final, *ends):
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] # callers may have no types
            raise TypeError(f"names of protocols and states must be strings, got {name!r}")


def bad_states(table: ProtocolTable) -> Iterator[str]:
    """What is wrong with the states."""
    if not table.final:
        yield "it has no final state"
    for state, count in Counter(table.states).items():
        if count > 1:
            yield f"state {state!r} is listed {count} times"
        if not all(state.split(SEPARATOR)):
            yield f"state {state!r} has an empty part in its name"
    for group in sorted({parent for state in table.states for parent in groups(state)} & set(table.states)):
        yield f"{group!r} is a group of other states and cannot be a state itself"
    for role, listed in ("initial", [table.initial]), ("final", table.final):
        for state in listed:
            if state not in table.states:
                yield f"{role} state {state!r} is not among its states; {nearest(state, table.states)}"


def bad_vocabularies(table: ProtocolTable) -> Iterator[str]:
    """What is wrong with the enumerations that the events come from."""
    owners: dict[str, type[enum.Enum]] = {}
    for vocabulary in table.vocabularies:
        known = spellings(vocabulary)
        for text in known:
            if owners.setdefault(text, vocabulary) is not vocabulary:
                yield f"{text!r} is an event of both {owners[text].__name__} and {vocabulary.__name__}"
        for member in vocabulary:
            other = known[member.value]
            if other is not member:
                yield f"{member.value!r} is {vocabulary.__name__}.{member.name} and a name of {other.name} too"
            if member.value == STATE_ATTRIBUTE:
                yield f"{vocabulary.__name__}.{member.name} is {member.value!r}, where a machine keeps its state"


def bad_transitions(table: ProtocolTable) -> Iterator[str]:
    """Transitions between states or by events that there are not."""
    for transition in table.transitions:
        for state in (transition.source, transition.target):
            if state not in table.states:
                yield f"{_arrow(transition)}: {state!r} is not among its states; {nearest(state, table.states)}"
        if transition.source in table.final:
            yield f"{_arrow(transition)}: {transition.source!r} is final, so nothing is legal there"
        try:
            table.event(transition.event)
        except (UnknownEventError, TypeError) as error:
            yield f"{_arrow(transition)}: {error}"


def ambiguities(table: ProtocolTable) -> Iterator[str]:
    """Events that lead from one state to several."""
    for (source, event), count in Counter((t.source, t.event) for t in table.transitions).items():
        if count > 1:
            yield f"{event.name} is ambiguous: {count} transitions leave {source!r} by it"


def dead_states(table: ProtocolTable) -> Iterator[str]:
    """States that cannot be reached, or from which no run can be completed."""
    ways = [(transition.source, transition.target) for transition in table.transitions]
    reached = _closure([table.initial], ways)
    ending = _closure(table.final, [(target, source) for source, target in ways])
    for state in table.states:
        if state not in reached:
            yield f"state {state!r} cannot be reached from {table.initial!r}"
        if state not in ending:
            yield f"no final state can be reached from {state!r}"


def _closure(start: Iterable[str], ways: Iterable[tuple[str, str]]) -> set[str]:
    """The states that some ways lead to, the start included."""
    onwards: dict[str, list[str]] = {}
    for source, target in ways:
        onwards.setdefault(source, []).append(target)
    reached = set(start)
    queue = list(reached)
    while queue:
        for target in onwards.get(queue.pop(), ()):
            if target not in reached:
                reached.add(target)
                queue.append(target)
    return reached


def _arrow(transition: Transition) -> str:
    event = transition.event
    return f"{transition.source} -{event.value if isinstance(event, enum.Enum) else event}-> {transition.target}"
