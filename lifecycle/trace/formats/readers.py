"""Reads any trace as records. The format is recognised from what is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from lifecycle.errors import TraceFormatError
from lifecycle.trace.formats.jsonlines import MALFORMED, JournalReader, RowReader, shown
from lifecycle.trace.formats.log import LogReader, is_log_line
from lifecycle.trace.formats.source import lines_of, name_of, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.journal.records import Record
    from lifecycle.trace.formats.source import Lines, Source, Wait

__all__ = ["batches", "read"]

SNIFFED = 1 << 20
"""Bytes in which the first line of a log must come, if other output is before it."""


class Reader(Protocol):
    """Turns lines into records."""

    def __init__(self, name: str) -> None: ...

    def read(self, lines: Lines) -> list[Record]:
        """The records in the next lines."""
        ...

    def end(self) -> list[Record]:
        """The records that could not be told before the end."""
        ...


def read(source: Source, *, name: str | None = None) -> Iterator[Record]:
    r"""The records of a trace, one by one, in constant memory.

    Three formats are known: the journal of this library; any JSON Lines that name events under ``event``, ``type``,
    ``type_`` or ``event_type``; and the log of LLM Compressor at DEBUG. Each may be compressed with gzip.

    Args:
        source: A path, or a file open for reading bytes.
        name: What messages call it; by default its path or name.

    Raises:
        OSError: A path cannot be opened or read.
        TraceFormatError: It is none of the formats, or a line is not a record.
        TypeError: `source` is neither a path nor a binary file.

    Examples:
        >>> import io
        >>> rows = io.BytesIO(b'{"type": "BATCH_START"}\n{"type": "BATCH_END", "ms": 0.5}\n')
        >>> [(record.line, record.event, record.duration) for record in read(rows)]
        [(1, 'BATCH_START', 0), (2, 'BATCH_END', 500000)]
    """
    for records in batches(source, name=name):
        yield from records


def batches(source: Source, *, name: str | None = None, wait: Wait | None = None) -> Iterator[list[Record]]:
    """The records of a trace, as many at a time as come together; `wait` is that of `lines_of`."""
    known = name_of(source, name)
    with opened(source) as file:
        reader: Reader | None = None
        held: list[Lines] = []
        first: bytes | None = None
        size = 0
        for lines in lines_of(file, known, wait):
            if reader is not None:
                yield reader.read(lines)
                continue
            held.append(lines)
            size += sum(map(len, lines.lines)) + len(lines.lines)
            kind: type[Reader] | None = None
            if first is None:
                first = next((line for line in lines.lines if line.strip()), None)
                kind = None if first is None else _json_reader(first)
            # Other output may come before a log.
            if kind is None and any(is_log_line(line) for line in lines.lines):
                kind = LogReader
            if kind is not None:
                reader = kind(known)
                yield from map(reader.read, held)
                held.clear()
            elif size > SNIFFED:
                break
        if reader is None:
            raise _unrecognised(held, known)
        yield reader.end()


def _json_reader(line: bytes) -> type[Reader] | None:
    """The reader for a trace that begins with a line, if that is a JSON object."""
    try:
        keys = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).keys()
    except MALFORMED:
        return None
    if "header" in keys:
        return JournalReader
    return LogReader if {"text", "record"} <= keys else RowReader


def _unrecognised(held: list[Lines], name: str) -> TraceFormatError:
    for each in held:
        for number, line in enumerate(each.lines, each.first):
            if line.strip():
                return TraceFormatError(f"{name}, line {number}: not a JSON object: {shown(line)}")
    return TraceFormatError(f"{name}, line 1: empty, so there is no event in it")
