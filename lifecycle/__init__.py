"""A compression session that cannot go out of order.

The engine is [`Lifecycle`][lifecycle.Lifecycle]; the legal orders are in [`protocols`][lifecycle.protocols].
"""

from lifecycle import protocols
from lifecycle.engine import Handle, Lifecycle, LifecycleView, Tap
from lifecycle.errors import (
    ExpectationError,
    IllegalEventError,
    LifecycleError,
    LifecycleWarning,
    MissingPayloadError,
    ProtocolError,
    ReentrantEventError,
    TraceFormatError,
    UnknownEventError,
)
from lifecycle.events import Event, EventType
from lifecycle.protocol import Protocol, Transition
from lifecycle.protocol.rules import Guard, Progress, Update

__all__ = [
    "Event",
    "EventType",
    "ExpectationError",
    "Guard",
    "Handle",
    "IllegalEventError",
    "Lifecycle",
    "LifecycleError",
    "LifecycleView",
    "LifecycleWarning",
    "MissingPayloadError",
    "Progress",
    "Protocol",
    "ProtocolError",
    "ReentrantEventError",
    "Tap",
    "TraceFormatError",
    "Transition",
    "UnknownEventError",
    "Update",
    "protocols",
]

__version__ = "0.1.0"
