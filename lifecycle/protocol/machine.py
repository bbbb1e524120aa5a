"""The `transitions` machine of a protocol, and the rows that the engine runs on, which are read off it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transitions.extensions.nesting import HierarchicalMachine, NestedState

from lifecycle.protocol.states import SEPARATOR, nested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lifecycle.events import Event
    from lifecycle.protocol.rules import Progress
    from lifecycle.protocol.transition import Transition

__all__ = ["STATE_ATTRIBUTE", "LegalMoves", "MachineModel", "build_machine", "read_rows"]

STATE_ATTRIBUTE = "state"
"""Where a `transitions` machine keeps the state of its model."""

LegalMoves = dict[Any, Any]
"""The row of one state: ``row[event] = (next row, event as a member, update or None, check or None)``."""


class ProtocolState(NestedState):
    """A state whose name is separated by dots. The separator of `NestedState` itself is shared by all its users."""

    separator = SEPARATOR


class ProtocolMachine(HierarchicalMachine):
    """A hierarchical `transitions` machine over dotted state names."""

    state_cls = ProtocolState
    # States may be called anything; these no state can be called, since each of its parts must have a name.
    wildcard_all = SEPARATOR
    wildcard_same = SEPARATOR * 2


def build_machine(
    states: Iterable[str], transitions: Iterable[Transition], initial: str, model: object
) -> HierarchicalMachine:
    """A machine with guards as conditions and with updates after the transitions."""
    machine = ProtocolMachine(
        model=model, states=nested(states), initial=initial, auto_transitions=False, send_event=True
    )
    for transition in transitions:
        machine.add_transition(
            transition.event.value,
            transition.source,
            transition.target,
            conditions=[_Condition(transition.guard.check)] if transition.guard else None,
            after=[_Count(transition.event, transition.update.apply if transition.update else None)],
        )
    return machine


def read_rows(machine: HierarchicalMachine, states: Sequence[str], members: Mapping[str, Any]) -> dict[str, LegalMoves]:
    """For each state its row, read off the events of a machine that `build_machine` has built.

    Args:
        machine: The machine.
        states: The states, in the order in which the rows are wanted.
        members: The event that each trigger of the machine stands for.
    """
    rows: dict[str, LegalMoves] = {state: {} for state in states}
    for name, event in machine.events.items():
        member = members[name]
        for source, (transition,) in event.transitions.items():
            # The callbacks are those that `build_machine` put there; for `transitions` they may be anything.
            conditions: Any = [condition.func for condition in transition.conditions]
            counts: Any = transition.after
            check = next((condition.check for condition in conditions), None)
            rows[source][member] = (rows[str(transition.dest)], member, counts[0].apply, check)
    return rows


class MachineModel:
    """A plain object for a `transitions` machine to keep its state on."""


class _Condition:
    """A guard as a condition of a `transitions` machine."""

    __slots__ = ("check",)

    def __init__(self, check: Callable[[Any, Any], bool]) -> None:
        self.check = check

    def __call__(self, data: Any) -> bool:
        # `transitions` compares the answer with True.
        return bool(self.check(data.model, data.kwargs))


class _Count:
    """What an accepted event counts, as an `after` callback of a `transitions` machine."""

    __slots__ = ("apply", "event")

    def __init__(self, event: Any, apply: Callable[[Event, Progress, Any], None] | None) -> None:
        self.event = event
        self.apply = apply

    def __call__(self, data: Any) -> None:
        model = data.model
        if self.apply is not None:
            self.apply(model.event, model.progress, data.kwargs)
        model.event.type_ = self.event
        model.progress.accepted += 1
