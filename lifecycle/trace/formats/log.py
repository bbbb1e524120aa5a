"""Reads the log of LLM Compressor, whose lines at DEBUG tell which events came.

The log is text in the format of its console (``time | function | LEVEL - message``) or of a loguru sink
(``time | LEVEL | module:function:line - message``), or the JSON that it writes to a file. Anything else may be between
its lines. The messages are those of LLM Compressor 0.6 to 0.14.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated

import msgspec

from lifecycle.errors import TraceFormatError
from lifecycle.journal.records import Record
from lifecycle.trace.formats.jsonlines import MALFORMED

if TYPE_CHECKING:
    from lifecycle.trace.formats.source import Lines

__all__ = ["LogReader", "is_log_line"]

_LOG_LINE = re.compile(
    rb"(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?P<fraction>\.\d{1,6})\S{0,6} \| "
    rb"(?:\w{1,80} \| (?P<console>[A-Z]+)|(?P<sink>[A-Z]+) *\| \S{1,200}) - (?P<message>.*)"
)
"""A line of text that loguru has written, in either format."""

MICROSECOND = 1000
"""In nanoseconds. Logs have no finer time."""

NOT_RETURNED = "it had not returned when the run ended"
"""What is known of a handler that left no trace."""

_MESSAGE = re.compile(
    r"(?P<begins>Initializing|Finalizing) compression lifecycle"
    r"|Handling event: (?:EventType\.)?(?P<event>\w{1,80})"
    r"|(?P<handled>Updated event with modifier)"
    r"|Compression lifecycle (?P<ends>initialized|finalized) for (?P<modifiers>\d{1,6}) modifiers"
    r"|(?P<resets>Resetting compression lifecycle)"
    r"|(?P<reset>Compression lifecycle reset)"
)
_BEGINS = {"Initializing": "initialize", "Finalizing": "finalize"}
_ENDS = {"initialized": "initialize", "finalized": "finalize"}
_RAISED = re.compile(rb"[A-Za-z_][\w.]{0,200}(?:Error|Exception|Interrupt|Exit)(?:: .*)?$")
_COLOUR = re.compile(rb"\x1b\[[0-9;]{0,20}m")


class _Level(msgspec.Struct):
    name: str


class _Time(msgspec.Struct):
    timestamp: Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class _LogRecord(msgspec.Struct):
    level: _Level
    time: _Time
    message: str


class _Serialized(msgspec.Struct):
    """A line of the file that loguru writes as JSON."""

    record: _LogRecord


class LogReader:
    """Reads the log of LLM Compressor."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decode = msgspec.json.Decoder(_Serialized).decode
        self._line = 1
        self._debug = False
        self._found = False
        self._modifiers = 1
        # The event that is being handled: since when, whether a modifier has handled it, and what was raised since.
        self._open: Record | None = None
        self._since = 0.0
        self._handled = False
        self._raised = ""

    def read(self, lines: Lines) -> list[Record]:
        """The records in the next lines; an event is one when it is known how it ended."""
        records: list[Record] = []
        for self._line, line in enumerate(lines.lines, lines.first):
            entry = self._serialized(line) if line.startswith(b"{") else _text(line)
            if entry is not None:
                self._debug = self._debug or entry.level.name == "DEBUG"
                records += self._take(entry.message, entry.time.timestamp)
            elif self._open is not None and _RAISED.match(line):
                self._raised = line.strip().decode(errors="replace")
        return records

    def end(self) -> list[Record]:
        """The event that was being handled when the log ended.

        Raises:
            TraceFormatError: The log has no events.
        """
        if not self._debug:
            raise self._not_debug()
        if not self._found:
            raise TraceFormatError(f"{self._name}, line {self._line}: the log ends without a line of a compression run")
        return self._close(over=True)

    def _serialized(self, line: bytes) -> _LogRecord | None:
        try:
            return self._decode(line).record
        except MALFORMED:
            return None

    def _take(self, message: str, time: float) -> list[Record]:
        """What a message tells."""
        match = _MESSAGE.match(message)
        if match is None:
            return []
        self._found = True
        if match["begins"] or match["event"]:
            return self._begin(match["event"] or _BEGINS[match["begins"]], time)
        if match["ends"]:
            return self._end(_ENDS[match["ends"]], int(match["modifiers"]), time)
        if match["resets"]:
            return [*self._close(over=True), Record(control="reset", line=self._line)]
        if match["handled"]:
            self._mark_handled(time)
        return []

    def _begin(self, event: str, time: float) -> list[Record]:
        records = self._close(over=False)
        self._open = Record(event, line=self._line)
        self._since = time
        self._handled = False
        self._raised = ""
        return records

    def _end(self, event: str, modifiers: int, time: float) -> list[Record]:
        if not self._debug:
            raise self._not_debug()
        self._modifiers = modifiers
        # The beginning of a log may have been cut off.
        records = [] if self._open is not None and self._open.event == event else self._begin(event, time)
        self._mark_handled(time)
        return [*records, *self._close(over=False)]

    def _mark_handled(self, time: float) -> None:
        self._handled = True
        if self._open is not None and self._since and time:
            self._open.duration = max(0, round((time - self._since) * 1e6)) * MICROSECOND

    def _close(self, *, over: bool) -> list[Record]:
        """The event that was being handled. Where the run is over after it, its handler may have failed."""
        record, self._open = self._open, None
        if record is None:
            return []
        if over and not self._handled and (self._modifiers or record.event in _ENDS.values()):
            record.error = self._raised or NOT_RETURNED
        return [record]

    def _not_debug(self) -> TraceFormatError:
        return TraceFormatError(
            f"{self._name}, line {self._line}: this log was not written at DEBUG, so the events are not in it; "
            "set LLM_COMPRESSOR_LOG_LEVEL=DEBUG and run again"
        )


def is_log_line(line: bytes) -> bool:
    """Whether loguru has written a line of text."""
    return _text(line) is not None


def _text(line: bytes) -> _LogRecord | None:
    """A line of text, if it is one of the log."""
    match = _LOG_LINE.search(_COLOUR.sub(b"", line) if b"\x1b" in line else line)
    if match is None:
        return None
    message = match["message"].decode(errors="replace")
    level = (match["console"] or match["sink"]).decode()
    return _LogRecord(_Level(level), _Time(_seconds(match["time"], match["fraction"])), message)


def _seconds(time: bytes, fraction: bytes) -> float:
    """A time of day, of which only differences matter; 0 if it is none."""
    try:
        return datetime.fromisoformat(time.decode()).replace(tzinfo=timezone.utc).timestamp() + float(fraction)
    except ValueError:
        return 0.0
