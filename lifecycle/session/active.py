"""The session that is active in a context, and callbacks that fire its events.

Every thread and every asyncio task has its own, since they are kept in a context variable.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lifecycle import protocols
from lifecycle.engine.methods import EventMethods
from lifecycle.errors import LifecycleError
from lifecycle.session.session import CompressionSession, entered

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from lifecycle.events import Event
    from lifecycle.protocol import Protocol
    from lifecycle.session.modifier import Modifier

__all__ = ["Callbacks", "active_session", "callbacks", "create_session"]


def create_session(
    modifiers: Iterable[Modifier] = (), protocol: Protocol | str = protocols.COMPRESSION, **options: Any
) -> CompressionSession:
    """A new session, active from now on in this thread or task; until its ``with`` block is left, if it has one.

    Without a block it stays active, and in memory, for as long as the thread or task lives.

    Args:
        modifiers: What changes the model.
        protocol: A protocol, or the name of a built-in one.
        **options: Those of [`Lifecycle`][lifecycle.Lifecycle].

    Examples:
        >>> with create_session(protocol="training") as session:
        ...     active_session() is session
        True
    """
    session = CompressionSession(modifiers, protocol, **options)
    session.activate()
    return session


def active_session() -> CompressionSession:
    """The session that was entered last in this thread or task.

    Raises:
        LifecycleError: There is none.

    Examples:
        >>> with CompressionSession() as session:
        ...     active_session() is session
        True
    """
    sessions = entered.get()
    if not sessions:
        raise LifecycleError(
            "no session is active in this thread or task; create_session() begins one, and `with session:` enters one"
        )
    return sessions[-1][0]


class Callbacks(EventMethods):
    """Fires events of the session that is active where they are called.

    Examples:
        >>> with create_session(protocol="training") as session:
        ...     _ = callbacks.initialize(model="a model")
        ...     with callbacks.batch():
        ...         _ = callbacks.loss_calculated(loss=0.5)
        >>> session.lifecycle.event.global_batch
        1
    """

    __slots__ = ()

    def event(self, event: str, /, **payload: Any) -> Event:
        """Fire an event of the active session; see `CompressionSession.event`."""
        return active_session().event(event, **payload)

    _fire = event

    # Both events of a bracket are of the session that was active at the first.

    @contextmanager
    def calibration_epoch(self, /, **payload: Any) -> Generator[Event, None, None]:
        """The bracket of the active session."""
        with active_session().calibration_epoch(**payload) as event:
            yield event

    @contextmanager
    def batch(self, /, **payload: Any) -> Generator[Event, None, None]:
        """The bracket of the active session."""
        with active_session().batch(**payload) as event:
            yield event


callbacks = Callbacks()
"""Fires events of the active session."""
