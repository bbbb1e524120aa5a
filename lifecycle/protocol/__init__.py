"""The legal order of events as a table, and all that can be asked of it."""

from lifecycle.protocol.states import SEPARATOR, groups
from lifecycle.protocol.table import REPEATED, Protocol
from lifecycle.protocol.transition import Transition

__all__ = ["REPEATED", "SEPARATOR", "Protocol", "Transition", "groups"]
