"""Where a trace comes from: a file or a stream, compressed or not, as blocks of numbered lines.

Whatever comes in, memory stays within `BLOCK` and `LONGEST_LINE`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lifecycle.errors import TraceFormatError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["BLOCK", "LONGEST_LINE", "Lines", "Source", "Wait", "lines_of", "name_of", "opened"]

BLOCK = 1 << 16
"""Bytes that are read, and unpacked, at a time."""

LONGEST_LINE = 1 << 20
"""Bytes that a line may have; a record has some hundred."""

Source = str | os.PathLike[str] | BinaryIO
"""A path, or a file that is open for reading bytes."""

Wait = Callable[[], bool]
"""Called at the end of what there is; says whether to try again."""

_GZIP = b"\x1f\x8b"
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_MARK = len(_UTF8_MARK)


class Lines(NamedTuple):
    """Some lines of a trace, without their ends.

    Attributes:
        first: The number of the first of them, counted from 1.
        lines: The lines.
        ended: Whether the last of them has an end; if not, the writer may not have come to it.
    """

    first: int
    lines: list[bytes]
    ended: bool


def name_of(source: Source, name: str | None) -> str:
    """What messages call a source, if its caller does not say.

    Raises:
        TypeError: It is neither a path nor a binary file.
    """
    if isinstance(source, (str, os.PathLike)):
        own: Any = os.fsdecode(source)
    elif callable(getattr(source, "read", None)) and not hasattr(source, "encoding"):
        own = getattr(source, "name", None)
    else:
        raise TypeError(f"a trace must be a path or a file open for reading bytes, got {source!r}")
    known = name or (own if isinstance(own, str) else "<trace>")
    # The bytes of a path need not be text, and a report is.
    return known.encode(errors="replace").decode()


@contextmanager
def opened(source: Source) -> Generator[BinaryIO, None, None]:
    """A source as an open file; a file that the caller has opened is left open.

    Raises:
        OSError: A path cannot be opened.
    """
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            yield file
    else:
        yield source


def lines_of(file: BinaryIO, name: str, wait: Wait | None = None) -> Iterator[Lines]:
    """The lines of a trace, some at a time.

    Args:
        file: Where the trace is read.
        name: What messages call it.
        wait: Called at the end of the file; if it says so, the file is read on. By default the end is the end.

    Raises:
        TraceFormatError: A line is too long, the text is UTF-16, or compressed data is damaged.
    """
    first = 1
    rest = b""
    for block in _unpacked(_blocks(file, wait), name):
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        if len(rest) > LONGEST_LINE or (lines and len(lines[0]) > LONGEST_LINE):
            number = first if lines and len(lines[0]) > LONGEST_LINE else first + len(lines)
            raise TraceFormatError(f"{name}, line {number}: longer than {LONGEST_LINE} bytes, which no record is")
        if lines:
            yield Lines(first, lines, ended=True)
            first += len(lines)
    if rest:
        yield Lines(first, [rest], ended=False)


def _blocks(file: BinaryIO, wait: Wait | None) -> Iterator[bytes]:
    # Of a pipe, `read1` hands out what is there, where `read` would wait for a whole block.
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while True:
        block = read(BLOCK)
        if block:
            yield block
        elif wait is None or not wait():
            return


def _unpacked(blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The text of a file, whether or not it is compressed."""
    begins = _beginning(blocks)
    if begins.startswith(_GZIP):
        blocks = _inflated(begins, blocks, name)
        begins = _beginning(blocks)
    if begins.startswith(_UTF16_MARKS):
        raise TraceFormatError(f"{name}, line 1: this is UTF-16 text; save it as UTF-8")
    yield begins.removeprefix(_UTF8_MARK)
    yield from blocks


def _beginning(blocks: Iterator[bytes]) -> bytes:
    """As many blocks as have a whole mark; a pipe may hand out a byte at a time."""
    begins = b""
    for block in blocks:
        begins += block
        if len(begins) >= _LONGEST_MARK:
            break
    return begins


def _inflated(block: bytes, blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    lines = 0
    member = zlib.decompressobj(wbits=31)
    try:
        while True:
            text = member.decompress(block, BLOCK)
            yield text
            lines += text.count(b"\n")
            if member.eof:
                # Several members may follow each other, and zeros may fill the rest of the file.
                block = next(
                    (rest for each in chain([member.unused_data], blocks) if (rest := each.lstrip(b"\0"))), b""
                )
                if not block:
                    return
                member = zlib.decompressobj(wbits=31)
                continue
            block = member.unconsumed_tail
            if not block and len(text) < BLOCK:
                block = next(blocks, b"")
                if not block:
                    raise TraceFormatError(f"{name}, line {lines + 1}: the compressed data ends too early")
    except zlib.error as error:
        raise TraceFormatError(f"{name}, line {lines + 1}: the compressed data is damaged: {error}") from error
