"""A compression session on the engine: modifiers that work in its events, and the state they share."""

from lifecycle.session.active import active_session, callbacks, create_session
from lifecycle.session.modifier import Modifier
from lifecycle.session.session import CompressionSession
from lifecycle.session.state import State

__all__ = ["CompressionSession", "Modifier", "State", "active_session", "callbacks", "create_session"]
