"""Reads journals, and other JSON Lines that name events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from lifecycle.errors import TraceFormatError
from lifecycle.journal.records import JOURNAL_VERSION, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.trace.formats.source import Lines

__all__ = ["CUT_OFF", "EVENT_KEYS", "MALFORMED", "JournalReader", "RowReader", "shown"]

Decoded = TypeVar("Decoded")

CUT_OFF = "(cut off)"
"""The name of a line that its writer could not finish."""

EVENT_KEYS = ("event", "type", "type_", "event_type")
"""Where a row may name its event; the first that has a text counts."""

SHOWN = 40
"""Bytes of a line that a message shows."""

NANOSECONDS = 1_000_000
"""In a millisecond."""

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line may raise."""

_HEADER_BEGINS = b'{"header":'


class _Row(msgspec.Struct):
    """A line of JSON Lines: an event, and what is known of how its handler went."""

    event: Any = None
    type: Any = None
    type_: Any = None
    event_type: Any = None
    ok: bool | None = None
    error: Any = None
    ms: Annotated[float, msgspec.Meta(ge=0, le=1e12)] | None = None
    skipped: bool | None = None


class _Version(msgspec.Struct):
    """The part of a journal's header that every version has."""

    version: int


class _Versioned(msgspec.Struct):
    """The line of a journal's header, whatever its version."""

    header: _Version


class _LineReader:
    """Reads one record from each line."""

    def __init__(self, name: str, decode: Callable[[bytes], Record]) -> None:
        self._name = name
        self._decode = decode
        self._doubtful: tuple[int, bytes, Exception] | None = None

    def read(self, lines: Lines) -> list[Record]:
        """The records in the next lines."""
        records: list[Record] = []
        if self._doubtful is not None:
            records.append(self._cut_off(*self._doubtful, continued=lines.lines[0]))
            self._doubtful = None
        decode = self._decode
        try:
            fine = [decode(line) for line in lines.lines]
        except MALFORMED:
            records += self._read_each(lines)
        else:
            for number, record in enumerate(fine, lines.first):
                record.line = number
                if not record.event:
                    self._check(record)
            records += fine
        return records

    def _read_each(self, lines: Lines) -> list[Record]:
        """The records in lines not all of which are records."""
        records: list[Record] = []
        for number, line in enumerate(lines.lines, lines.first):
            try:
                record = self._decode(line)
            except MALFORMED as error:
                if not line.strip():
                    continue
                after = lines.lines[number - lines.first + 1 : number - lines.first + 2]
                if lines.ended and not after:
                    self._doubtful = number, line, error
                    break
                record = self._cut_off(number, line, error, continued=after[0] if after else None)
            record.line = number
            if not record.event:
                self._check(record)
            records.append(record)
        return records

    def end(self) -> list[Record]:
        """Nothing is left but a line that is none."""
        if self._doubtful is not None:
            self._cut_off(*self._doubtful, continued=b"")
        return []

    def _cut_off(self, number: int, line: bytes, error: Exception, *, continued: bytes | None) -> Record:
        """A line that was not finished: the last one of all, or one after which a journal was continued."""
        if (continued is None or continued.startswith(_HEADER_BEGINS)) and _decoded(line, msgspec.Raw) is None:
            return Record(CUT_OFF, line=number)
        raise TraceFormatError(f"{self._name}, line {number}: {_fault(line, error)}") from error

    def _check(self, record: Record) -> None:
        if record.header is None and record.control is None and record.rejected is None:
            raise TraceFormatError(
                f"{self._name}, line {record.line}: neither an event nor 'rejected', 'control' or 'header'"
            )


class JournalReader(_LineReader):
    """Reads the journals of this library."""

    def __init__(self, name: str) -> None:
        super().__init__(name, msgspec.json.Decoder(Record).decode)


class RowReader(_LineReader):
    """Reads JSON Lines that name events."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self._row)
        self._decode_row = msgspec.json.Decoder(_Row).decode

    def _row(self, line: bytes) -> Record:
        row = self._decode_row(line)
        values = [getattr(row, key) for key in EVENT_KEYS]
        event = next((value for value in values if value and isinstance(value, str)), "")
        if not event:
            found = next((value for value in values if value is not None), None)
            keys = ", ".join(EVENT_KEYS)
            raise msgspec.ValidationError(
                f"names no event: one of {keys} must be a text"
                + ("" if found is None else f", got {shown(msgspec.json.encode(found))}")
            )
        record = Record(event, duration=int((row.ms or 0) * NANOSECONDS), skipped=bool(row.skipped))
        if row.error is not None:
            record.detail = row.error if isinstance(row.error, str) else shown(msgspec.json.encode(row.error))
        if row.ok is False:
            record.error = record.detail or ""
        return record


def shown(line: bytes) -> str:
    """The beginning of a line, for a message."""
    text = line.strip()[:SHOWN].decode(errors="replace")
    return repr(text) + "..." * (len(line.strip()) > SHOWN)


def _decoded(line: bytes, as_type: type[Decoded]) -> Decoded | None:
    """A line as a type, if it can be that."""
    try:
        return msgspec.json.decode(line, type=as_type)
    except MALFORMED:
        return None


def _fault(line: bytes, error: Exception) -> str:
    """What is wrong with a line."""
    versioned = _decoded(line, _Versioned)
    # Another version may well have other fields, so this comes first.
    if versioned is not None and versioned.header.version != JOURNAL_VERSION:
        return f"a journal of version {versioned.header.version}, and {JOURNAL_VERSION} can be read"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    reason = str(error)
    # An array or a text in place of the whole object has no path in it.
    if isinstance(error, msgspec.ValidationError) and ("`$" in reason or not reason.startswith("Expected")):
        return reason[:1].lower() + reason[1:]
    return f"not a JSON object: {shown(line)}"
