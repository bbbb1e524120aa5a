"""The engine: takes the events of a run, refuses what is out of order, counts, and notifies."""

from lifecycle.engine.lifecycle import Lifecycle
from lifecycle.engine.listeners import Handle, LifecycleView, Tap

__all__ = ["Handle", "Lifecycle", "LifecycleView", "Tap"]
