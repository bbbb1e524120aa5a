"""Reading: which format it is, what becomes of each line, and what is wrong with those that are none."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import unhurried
from traces import DATA, lines

from lifecycle import TraceFormatError, trace
from lifecycle.trace.formats import readers
from lifecycle.trace.formats.source import BLOCK, LONGEST_LINE, lines_of

HEADER = b'{"header":{"version":1,"protocol":"training"}}\n'
UTF8_MARK = b"\xef\xbb\xbf"


def read(data, **options):
    return list(trace.read(io.BytesIO(data), **options))


def names(data):
    return [(record.line, record.event) for record in read(data)]


def fault(data):
    with pytest.raises(TraceFormatError) as caught:
        read(data, name="run.txt")
    return str(caught.value)


# Lines


class Pipe(io.RawIOBase):
    """A file that hands out a few bytes at a time, and cannot do anything else."""

    def __init__(self, data, size):
        self.left, self.size = data, size

    def read(self, size=-1):
        piece, self.left = self.left[: self.size], self.left[self.size :]
        return piece


def joined(blocks):
    return [(first + offset, line) for first, each, _ in blocks for offset, line in enumerate(each)]


def numbered(text):
    *whole, rest = text.removeprefix(UTF8_MARK).split(b"\n")
    return list(enumerate([*whole, rest] if rest else whole, 1))


def is_utf_8(text):
    return not text.startswith((b"\xff\xfe", b"\xfe\xff"))


@unhurried
@given(
    st.binary(max_size=200).filter(lambda data: is_utf_8(data) and not data.startswith(b"\x1f\x8b")),
    st.booleans(),
    st.integers(1, 20),
)
def test_lines_are_what_python_says_they_are_however_they_come(text, marked, size):
    data = UTF8_MARK * marked + text
    assert joined(lines_of(Pipe(data, size), "x")) == numbered(data)


@unhurried
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4).filter(lambda members: is_utf_8(b"".join(members))),
    st.booleans(),
    st.integers(1, 40),
    st.integers(0, 50),
)
def test_compressed_lines_are_those_that_were_compressed(members, marked, size, padding):
    members = [UTF8_MARK * marked, *members]
    data = b"".join(gzip.compress(member) + b"\0" * padding for member in members)
    assert joined(lines_of(Pipe(data, size), "x")) == numbered(b"".join(members))


def test_a_compressed_member_after_more_than_a_block_of_zeros_is_read():
    data = gzip.compress(b"a\n") + b"\0" * (BLOCK + 7) + gzip.compress(b"b\n")
    assert joined(lines_of(io.BytesIO(data), "x")) == [(1, b"a"), (2, b"b")]


def test_a_compressed_block_that_unpacks_to_more_than_a_block_is_read_whole():
    text = b"x" * 999 + b"\n"
    blocks = list(lines_of(io.BytesIO(gzip.compress(text * 1000)), "x"))
    assert sum(len(block.lines) for block in blocks) == 1000
    assert len(blocks) >= 1000 * 1000 // BLOCK


def test_only_a_last_line_without_an_end_is_not_ended():
    assert [block.ended for block in lines_of(io.BytesIO(b"a\nb"), "x")] == [True, False]
    assert [block.ended for block in lines_of(io.BytesIO(b"a\n"), "x")] == [True]


def test_at_the_end_of_what_there_is_the_reader_asks_whether_to_wait():
    file = io.BytesIO(b"a\n")
    answers = iter([True, True, False])
    asked = []

    def wait():
        asked.append(file.tell())
        if len(asked) == 1:
            file.write(b"b\nc")
            file.seek(2)
        return next(answers)

    assert joined(lines_of(file, "x", wait)) == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert asked == [2, 5, 5]


# Which format


@pytest.mark.parametrize("key", ["event", "type", "type_", "event_type"])
def test_rows_may_name_their_event_under_any_of_the_keys(key):
    assert names(b'{"%s": "BATCH_START"}\n' % key.encode()) == [(1, "BATCH_START")]


def test_of_several_keys_the_first_that_has_a_text_counts():
    rows = b"""{"type": "BATCH_END", "event": 3}
{"type_": "no", "event": "BATCH_START"}
{"event": "", "type": "LOSS_CALCULATED"}"""
    assert names(rows) == [(1, "BATCH_END"), (2, "BATCH_START"), (3, "LOSS_CALCULATED")]


def test_what_a_row_says_of_its_handler_is_kept():
    (fine, failed, silent, odd) = read(
        b'{"event": "a", "ok": true, "error": "not counted", "ms": 1.5, "skipped": true}\n'
        b'{"event": "b", "ok": false, "error": "RuntimeError: no"}\n'
        b'{"event": "c", "ok": false}\n'
        b'{"event": "d", "ok": false, "error": {"type": "RuntimeError"}, "ms": null}\n'
    )
    assert (fine.duration, fine.skipped, fine.error) == (1_500_000, True, None)
    assert (failed.error, silent.error) == ("RuntimeError: no", "")
    assert (odd.error, odd.duration) == ("""'{"type":"RuntimeError"}'""", 0)


def test_empty_lines_and_ends_of_windows_do_no_harm():
    assert names(b'\n \r\n{"event": "a"}\r\n\n{"event": "b"}\n\n') == [(3, "a"), (5, "b")]


def test_a_mark_of_utf_8_at_the_beginning_does_no_harm():
    assert names(UTF8_MARK + b'{"event": "a"}') == [(1, "a")]


@pytest.mark.parametrize("file", sorted(DATA.iterdir()), ids=lambda file: file.name)
def test_a_compressed_file_reads_like_the_file_itself(file):
    assert read(gzip.compress(file.read_bytes())) == list(trace.read(file))


def test_a_path_and_a_name_are_what_messages_call_a_trace(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"[]\n")
    with pytest.raises(TraceFormatError, match=r"run\.jsonl, line 1"):
        list(trace.read(path))
    with pytest.raises(TraceFormatError, match=r"^mine, line 1"):
        list(trace.read(path, name="mine"))
    with path.open("rb") as file, pytest.raises(TraceFormatError, match=r"run\.jsonl, line 1"):
        list(trace.read(file))
    with pytest.raises(TraceFormatError, match=r"^<trace>, line 1"):
        list(trace.read(io.BytesIO(b"[]\n")))


def test_a_path_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(trace.read(tmp_path / "no.jsonl"))


@pytest.mark.parametrize("source", [3, None, io.StringIO("x"), [b"x"]])
def test_a_source_that_is_neither_a_path_nor_a_binary_file_is_a_type_error(source):
    with pytest.raises(TypeError, match="a trace must be a path or a file open for reading bytes"):
        list(trace.read(source))


# What is wrong


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: empty, so there is no event in it"),
        (b"\n \n", "line 1: empty, so there is no event in it"),
        (b"not a trace", "line 1: not a JSON object: 'not a trace'"),
        (b"\n\nnot a trace\nat all\n", "line 3: not a JSON object: 'not a trace'"),
        (b"x" * 100, f"line 1: not a JSON object: {'x' * 40!r}..."),
        (b"\x00\x01\xff", "line 1: not a JSON object: '\\x00\\x01\ufffd'"),
        (b"[1, 2]\n", "line 1: not a JSON object: '[1, 2]'"),
        (b'{"event": "a"}\n[]\n{"event": "b"}\n', "line 2: not a JSON object: '[]'"),
        (b'{"event": "a"}\n{"event": "b"\n{"event": "c"}\n', 'line 2: not a JSON object: \'{"event": "b"\''),
        (b'{"event": "a"}\n{"event": "b"\n', 'line 2: not a JSON object: \'{"event": "b"\''),
        (b'{"event": 3}\n', "line 1: names no event: one of event, type, type_, event_type must be a text, got '3'"),
        (b'{"event": 3}', "line 1: names no event: one of event, type, type_, event_type must be a text, got '3'"),
        (HEADER + b'{"event": 3}', "line 2: expected `str`, got `int` - at `$.event`"),
        (HEADER + b'{"event": 3}\n' + HEADER, "line 2: expected `str`, got `int` - at `$.event`"),
        (b'{"a": "b"}\n', "line 1: names no event: one of event, type, type_, event_type must be a text"),
        (
            b'{"event": ""}\n',
            "line 1: names no event: one of event, type, type_, event_type must be a text, got '\"\"'",
        ),
        (b'{"event": "a", "ok": 1}\n', "line 1: expected `bool | null`, got `int` - at `$.ok`"),
        (b'{"event": "a", "ms": -1}\n', "line 1: expected `float` >= 0.0 - at `$.ms`"),
        (b'{"event": "\xff"}\n', "line 1: not UTF-8 text"),
        (b'{"event": "a"}\n{"event":' + b"[" * 100_000 + b"\n{}\n", "line 2: nested too deeply"),
        (HEADER + b"{}\n", "line 2: neither an event nor 'rejected', 'control' or 'header'"),
        (HEADER + b'{"event": 3}\n', "line 2: expected `str`, got `int` - at `$.event`"),
        (HEADER + b'{"control": "explode"}\n', "line 2: invalid enum value 'explode' - at `$.control`"),
        (HEADER + b'{"event": "a", "duration": -1}\n', "line 2: expected `int` >= 0 - at `$.duration`"),
        (b'{"header": {"version": 2, "protocol": "x"}}\n', "line 1: a journal of version 2, and 1 can be read"),
        (b'{"header": {"version": 2}}', "line 1: a journal of version 2, and 1 can be read"),
        (
            HEADER + b'{"event": "a", "header": {"version": 0, "protocol": "x"}}\n',
            "line 2: a journal of version 0, and 1 can be read",
        ),
        (
            b'{"header": {"version": "2", "protocol": "x"}}\n',
            "line 1: expected `int`, got `str` - at `$.header.version`",
        ),
        (b'{"header": {"protocol": "x"}}\n', "line 1: object missing required field `version` - at `$.header`"),
        (gzip.compress("text".encode("utf-16")), "line 1: this is UTF-16 text; save it as UTF-8"),
        ("text".encode("utf-16"), "line 1: this is UTF-16 text; save it as UTF-8"),
        (b"a\n" + b"x" * (LONGEST_LINE + 1), f"line 2: longer than {LONGEST_LINE} bytes, which no record is"),
        (b"x" * (LONGEST_LINE + 1) + b"\na\n", f"line 1: longer than {LONGEST_LINE} bytes, which no record is"),
        (gzip.compress(b'{"event": "a"}\n' * 9)[:-9], "line 10: the compressed data ends too early"),
        (gzip.compress(b"x")[:5], "line 1: the compressed data ends too early"),
        (b"\x1f\x8bnot gzip", "line 1: the compressed data is damaged: Error -3 while decompressing data: unknown"),
        (gzip.compress(b'{"event": "a"}\n') + b"rest", "line 2: the compressed data is damaged: Error -3"),
    ],
)
def test_what_is_no_trace_is_named_with_its_file_and_line(data, message):
    assert fault(data).startswith(f"run.txt, {message}")


def test_output_of_other_programs_without_an_end_is_no_log():
    assert fault(b"loading\n" * (readers.SNIFFED // 4)).startswith("run.txt, line 1: not a JSON object: 'loading'")


def test_a_line_may_be_as_long_as_the_longest():
    data = json.dumps({"event": "a", "text": ""}).encode()
    assert names(data[:-2] + b"x" * (LONGEST_LINE - len(data)) + data[-2:]) == [(1, "a")]


def test_a_last_line_that_was_cut_off_is_told_from_one_that_is_wrong():
    assert names(b'{"event": "a"}\n{"event": "b') == [(1, "a"), (2, "(cut off)")]
    assert names(HEADER + b'{"event": "b') == [(1, ""), (2, "(cut off)")]


@pytest.mark.parametrize("size", [7, 40, 10_000])
def test_a_line_that_was_cut_off_before_a_journal_was_continued_is_noted_wherever_blocks_end(size):
    data = HEADER + b'{"event":"initialize"}\n{"event":"batch_st\n' + HEADER + b'{"event":"initialize"}\n'
    found = [(record.line, record.event) for record in trace.read(Pipe(data, size))]
    assert found == [(1, ""), (2, "initialize"), (3, "(cut off)"), (4, ""), (5, "initialize")]


@pytest.mark.parametrize("size", [7, 40, 10_000])
def test_a_line_that_is_wrong_before_other_lines_is_an_error_wherever_blocks_end(size):
    data = HEADER + b'{"event":"batch_st\n{"event":"initialize"}\n'
    with pytest.raises(TraceFormatError, match="line 2: not a JSON object"):
        list(trace.read(Pipe(data, size)))


def test_the_line_that_a_journal_claims_to_be_on_is_not_believed():
    assert [record.line for record in read(HEADER + b'{"event":"initialize","line":77}\n')] == [1, 2]


def test_reading_is_streaming():
    def endless():
        yield lines("I").getvalue()
        while True:
            yield lines("BLE").getvalue()

    class Endless(io.RawIOBase):
        pieces = endless()

        def read(self, size=-1):
            return next(self.pieces)

    records = trace.read(Endless())
    assert [next(records).event for _ in range(5)][:2] == ["INITIALIZE", "BATCH_START"]
