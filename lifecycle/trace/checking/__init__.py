"""Checks what the runs of a trace did against a protocol."""

from lifecycle.trace.checking.traces import AUTO, Checking, check

__all__ = ["AUTO", "Checking", "check"]
