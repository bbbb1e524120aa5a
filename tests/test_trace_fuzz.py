"""Whatever is read, there is a report or a `TraceFormatError` with file and line, in bounded memory."""

from __future__ import annotations

import gzip
import io
import itertools
import random
import re
import tracemalloc
import zlib
from dataclasses import asdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import unhurried
from traces import CONTROLS, DATA, check

from lifecycle import Progress, TraceFormatError, protocols, trace
from lifecycle.trace.formats.source import LONGEST_LINE

MEMORY = 16 * 2**20
"""Bytes that a check may take, whatever it checks."""

FILES = sorted(DATA.iterdir())
HEADER = b'{"header":{"version":1,"protocol":"compression"}}\n'
LETTERS = "ICBLPOESKF" + "".join(CONTROLS)


def survives(source, protocol="compression"):
    """Check a trace; anything but a report and an error with file and line fails the test."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    report = message = None
    try:
        report = trace.check(file, protocol, name="fuzz", strict_names=True, expect={"batches": 2})
    except TraceFormatError as error:
        message = str(error)
    if report is None:
        assert re.match(r"fuzz, line \d+: .", message)
        return None
    assert report.run_count >= 1
    assert str(report)
    msgspec.json.decode(report.to_json())
    return report


@unhurried
@given(st.binary(max_size=300))
def test_any_bytes(data):
    survives(data)


@unhurried
@given(st.text(max_size=200), st.sampled_from(["utf-8", "utf-16", "latin-1", "ascii"]))
def test_any_text(text, encoding):
    survives(text.encode(encoding, errors="replace"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*trace.Record.__struct_fields__, "type", "type_", "event_type", "ok", "ms", "version", "text"]
)
NAMES = st.sampled_from(
    ["INITIALIZE", "batch_start", "EventType.BATCH_END", "RESET", "abort", "suspend", "finalize", "x"]
)
ODD_ROWS = st.dictionaries(FIELDS, JSON | NAMES | st.integers(2**62, 2**70), max_size=5)


@unhurried
@given(st.lists(ODD_ROWS | NAMES.map(lambda name: {"event": name}), max_size=8), st.booleans())
def test_rows_of_any_types(rows, journal):
    body = b"\n".join(map(msgspec.json.encode, rows))
    survives(HEADER + body if journal else body)


RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "event": NAMES,
        "state": st.sampled_from([*protocols.COMPRESSION.states, "nowhere", ""]),
        "position": st.integers(0, 9),
        "global_step": st.integers(0, 2**64),
        "duration": st.integers(0, 2**63 - 1),
        "skipped": st.booleans(),
        "error": st.text(max_size=5),
        "rejected": NAMES,
        "reason": st.sampled_from(["IllegalEventError", "MissingPayloadError", "TypeError"]),
        "let_through": st.booleans(),
        "control": st.sampled_from(["reset", "abort", "suspend", "resume", "load"]),
        "progress": st.just(asdict(Progress(accepted=3, batches=-1))),
        "header": st.just({"version": 1, "protocol": "training", "expect": {"steps": 1}}),
    },
).filter(lambda record: record.keys() & {"event", "rejected", "control", "header"})


@unhurried
@given(st.lists(RECORDS, max_size=15))
def test_records_that_contradict_each_other(records):
    assert survives(HEADER + b"\n".join(map(msgspec.json.encode, records))) is not None


@unhurried
@given(st.text(LETTERS, min_size=1, max_size=60), st.sampled_from([*protocols.BUILT_IN, "auto"]))
def test_any_events_in_any_order(letters, protocol):
    if set(letters) - set("a()?"):
        assert check(letters, protocol=protocol).run_count


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_real_traces_that_were_cut_off_anywhere(file):
    data = file.read_bytes()
    rng = random.Random(0)  # noqa: S311 # cuts, not secrets
    for end in rng.sample(range(len(data)), 40):
        survives(data[:end])
        survives(gzip.compress(data)[: end // 4])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_real_traces_with_damaged_bytes(file):
    data = bytearray(file.read_bytes())
    rng = random.Random(0)  # noqa: S311 # damage, not secrets
    for _ in range(40):
        damaged = bytearray(data)
        for at in rng.sample(range(len(data)), 3):
            damaged[at] = rng.randrange(256)
        survives(bytes(damaged))


def test_traces_of_different_formats_one_after_the_other():
    for one, other in itertools.permutations(
        [FILES[0], FILES[-1], DATA / "llmcompressor-0.14.0.1-sequential-gptq.log"], 2
    ):
        survives(one.read_bytes() + other.read_bytes())
        survives(HEADER + one.read_bytes())


# Memory


class Stream(io.RawIOBase):
    """A stream that is made while it is read."""

    def __init__(self, pieces):
        self.pieces = iter(pieces)

    def read(self, size=-1):
        return next(self.pieces, b"")


def bomb(piece, count):
    """Compressed data that unpacks to very many bytes, itself made while it is read."""
    packer = zlib.compressobj(9, wbits=31)
    for _ in range(count):
        yield packer.compress(piece) or packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


def peak(source, protocol="compression"):
    """The most bytes that a check had at a time."""
    tracemalloc.start()
    try:
        survives(source, protocol)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


BATCH = b'{"event":"batch_start"}\n{"event":"batch_end"}\n'
LONG = b'{"event":"batch_start","text":"' + b"x" * (LONGEST_LINE - 100) + b'"}\n'
BEGIN = HEADER + b'{"event":"initialize"}\n{"event":"calibration_epoch_start"}\n'
RUN = HEADER + b'{"event":"initialize"}\n{"event":"batch_end"}\n'
HUGE = {
    "zeros": lambda: bomb(b"\0" * 2**20, 60),
    "empty lines": lambda: bomb(b"\n" * 2**16, 20),
    "legal events": lambda: itertools.chain([BEGIN], itertools.repeat(BATCH * 500, 20)),
    "compressed legal events": lambda: bomb(BATCH * 1000, 20),
    "illegal events": lambda: itertools.repeat(b'{"event":"loss_calculated"}\n' * 100, 30),
    "names that are no events": lambda: itertools.repeat(b'{"event":"note"}\n' * 1000, 20),
    "different names": lambda: (b'{"event":"%s %d"}\n' % (b"x" * 9000, number) for number in range(400)),
    "runs that are not fine": lambda: itertools.repeat(RUN * 10, 30),
    "long lines": lambda: itertools.repeat(LONG, 20),
    "one line that is too long": lambda: itertools.repeat(b"x" * 2**16, 100),
    "one JSON line that is too long": lambda: itertools.chain([b'{"event":"'], itertools.repeat(b"x" * 2**16, 100)),
    "nested lists": lambda: itertools.chain([b'{"event":'], itertools.repeat(b"[" * 2**16, 15)),
    "long errors": lambda: itertools.repeat(b'{"event":"x","ok":false,"error":"%s"}\n' % (b"x" * 2**18), 60),
    "lines of a log": lambda: itertools.repeat(
        b"2026-11-22 16:58:36.458 | DEBUG    | a.b:c:1 - Handling event: X\n" * 100, 60
    ),
    "lines of something else": lambda: itertools.repeat(b"loading\n" * 1000, 300),
}


@pytest.mark.parametrize("name", HUGE)
def test_memory_is_bounded_whatever_is_read(name):
    assert peak(Stream(HUGE[name]())) < MEMORY


def test_memory_does_not_grow_with_the_length_of_a_trace():
    peaks = [peak(Stream(itertools.chain([BEGIN], itertools.repeat(BATCH * 500, count)))) for count in (4, 4, 40)]
    assert peaks[2] < peaks[1] * 1.2 + 10_000


def test_memory_does_not_grow_with_the_length_of_a_trace_full_of_violations():
    pieces = b'{"event":"loss_calculated"}\n' * 100
    peaks = [peak(Stream(itertools.repeat(pieces, count)), "training") for count in (12, 12, 36)]
    assert peaks[2] < peaks[1] * 1.2 + 10_000
