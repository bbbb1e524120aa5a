"""Traces of runs: written by the journal, read from what people have, and checked.

[`Journal`][lifecycle.trace.Journal] writes everything that happens to a lifecycle. [`read`][lifecycle.trace.read] takes
journals, other JSON Lines and the logs of LLM Compressor. [`check`][lifecycle.trace.check] says what is wrong in them.
"""

from lifecycle.journal import Header, Journal, Record
from lifecycle.trace.checking import check
from lifecycle.trace.formats import read
from lifecycle.trace.report import Failure, Report, Resumption, Run, TransitionCount, Violation, json_schema

__all__ = [
    "Failure",
    "Header",
    "Journal",
    "Record",
    "Report",
    "Resumption",
    "Run",
    "TransitionCount",
    "Violation",
    "check",
    "json_schema",
    "read",
]
