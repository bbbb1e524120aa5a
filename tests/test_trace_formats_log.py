"""The log of LLM Compressor: its three formats, its events, and what it tells of handlers that failed."""

from __future__ import annotations

import io
import json

import pytest
from traces import DATA

from lifecycle import TraceFormatError, trace

LOG = DATA / "llmcompressor-0.14.0.1-sequential-gptq.log"
INITIALIZED = [
    ("DEBUG", "initialize", "Initializing compression lifecycle"),
    ("DEBUG", "initialize", "Initialized modifier: scheme='W8A8'"),
    ("INFO", "initialize", "Compression lifecycle initialized for 1 modifiers"),
]
FINALIZED = [
    ("DEBUG", "finalize", "Finalizing compression lifecycle"),
    ("INFO", "finalize", "Compression lifecycle finalized for 1 modifiers"),
]
RESET = [("DEBUG", "reset", "Resetting compression lifecycle"), ("INFO", "reset", "Compression lifecycle reset")]
UPDATED = ("DEBUG", "event", "Updated event with modifier: scheme='W8A8'")


def handling(name):
    return ("DEBUG", "event", f"Handling event: EventType.{name}")


def console(number, level, function, message):
    return f"2026-11-22T16:58:36.{number:03}000+0000 | {function} | {level} - {message}"


def sink(number, level, function, message):
    return f"2026-11-22 16:58:36.{number:03} | {level:<8} | llmcompressor.core.lifecycle:{function}:59 - {message}"


def coloured(number, level, function, message):
    return f"\x1b[32m2026-11-22 16:58:36.{number:03}\x1b[0m | \x1b[1m{level:<8}\x1b[0m | x:{function}:1 - {message}"


def ranked(number, level, function, message):
    return f"[rank0]: {sink(number, level, function, message)}"


def serialized(number, level, function, message):
    time = {"repr": "2026-11-22", "timestamp": 1795366716 + number / 1000}
    return json.dumps({"text": message, "record": {"level": {"name": level}, "message": message, "time": time}})


FORMATS = [console, sink, coloured, ranked, serialized]


def log(*entries, form=sink):
    """A log of entries, one a millisecond; a text is a line of something else."""
    each = (entry if isinstance(entry, str) else form(number, *entry) for number, entry in enumerate(entries))
    return io.BytesIO("\n".join(each).encode())


def read(*entries, form=sink):
    return [(record.event or record.control, record.error) for record in trace.read(log(*entries, form=form))]


def fault(*entries):
    with pytest.raises(TraceFormatError) as caught:
        list(trace.read(log(*entries), name="run.log"))
    return str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_the_log_tells_the_same_run(form):
    entries = [*RESET, *INITIALIZED, handling("CALIBRATION_START"), UPDATED, *FINALIZED]
    found = [
        (record.line, record.event or record.control, round(record.duration, -3))
        for record in trace.read(log(*entries, form=form))
    ]
    millisecond = 10**6
    assert found == [
        (1, "reset", 0),
        (3, "initialize", 2 * millisecond),
        (6, "CALIBRATION_START", millisecond),
        (8, "finalize", millisecond),
    ]


def test_other_output_may_be_before_and_between_the_lines():
    assert read("Loading checkpoint shards: 100%", *INITIALIZED, "(Linear): x", "{'a': 1}", "{}", *FINALIZED) == [
        ("initialize", None),
        ("finalize", None),
    ]


def test_a_time_that_cannot_be_is_not_counted():
    begin, end = (sink(number, *entry) for number, entry in enumerate(FINALIZED))
    for entries in [(begin.replace("16:58", "76:58"), end), (begin, end.replace("16:58", "76:58"))]:
        assert [record.duration for record in trace.read(log(*INITIALIZED, *entries))] == [2_000_000, 0]


def test_a_clock_that_goes_back_makes_no_negative_time():
    late = sink(900, *FINALIZED[0])
    assert [record.duration for record in trace.read(log(*INITIALIZED, late, FINALIZED[1]))][1] == 0


def test_a_log_whose_beginning_was_cut_off_is_read_from_there():
    assert read(*INITIALIZED[1:], *FINALIZED) == [("initialize", None), ("finalize", None)]
    assert read(UPDATED, *FINALIZED) == [("finalize", None)]


@pytest.mark.parametrize("end", [[], RESET])
def test_a_handler_that_left_no_trace_before_the_run_ended_failed(end):
    found = read(*INITIALIZED, handling("SEQUENTIAL_EPOCH_END"), UPDATED, handling("SEQUENTIAL_EPOCH_END"), *end)
    assert found[:3] == [
        ("initialize", None),
        ("SEQUENTIAL_EPOCH_END", None),
        ("SEQUENTIAL_EPOCH_END", "it had not returned when the run ended"),
    ]


def test_what_was_raised_is_said_if_it_was_printed():
    traceback = ["Traceback (most recent call last):", "  File x", "RuntimeError: unflatten: Provided sizes"]
    found = read(*INITIALIZED, handling("SEQUENTIAL_EPOCH_END"), *traceback)
    assert found[-1] == ("SEQUENTIAL_EPOCH_END", "RuntimeError: unflatten: Provided sizes")


def test_what_was_raised_and_caught_is_no_failure():
    found = read(*INITIALIZED, handling("SEQUENTIAL_EPOCH_END"), "ValueError: caught", UPDATED, *FINALIZED)
    assert found == [("initialize", None), ("SEQUENTIAL_EPOCH_END", None), ("finalize", None)]


def test_an_error_between_events_is_no_failure_of_a_handler():
    assert read(*INITIALIZED, "ValueError: in between", *RESET) == [("initialize", None), ("reset", None)]


def test_initialize_and_finalize_can_fail_too():
    assert read(INITIALIZED[0], "KeyError: 'x'") == [("initialize", "KeyError: 'x'")]
    assert read(*INITIALIZED, FINALIZED[0])[-1] == ("finalize", "it had not returned when the run ended")


def test_without_modifiers_nothing_tells_that_a_handler_has_returned():
    none = ("INFO", "initialize", "Compression lifecycle initialized for 0 modifiers")
    assert read(*INITIALIZED[:1], none, handling("CALIBRATION_START"))[-1] == ("CALIBRATION_START", None)


@pytest.mark.parametrize("line", [INITIALIZED[2], FINALIZED[1]])
def test_a_log_at_info_is_bad_input_and_says_how_to_switch_debug_on(line):
    assert fault(RESET[1], line) == (
        "run.log, line 2: this log was not written at DEBUG, so the events are not in it; "
        "set LLM_COMPRESSOR_LOG_LEVEL=DEBUG and run again"
    )


def test_a_log_at_info_that_ends_early_is_bad_input_too():
    assert "line 2: this log was not written at DEBUG" in fault(RESET[1], ("INFO", "load", "x"))


def test_the_real_log_at_info_would_look_conforming_and_is_bad_input():
    lines = [line for line in LOG.read_text().splitlines() if "| DEBUG" not in line]
    with pytest.raises(TraceFormatError, match="set LLM_COMPRESSOR_LOG_LEVEL=DEBUG"):
        list(trace.read(io.BytesIO("\n".join(lines).encode())))


def test_a_log_of_something_else_is_bad_input():
    assert fault(("DEBUG", "load", "Loading"), ("DEBUG", "load", "Loaded")) == (
        "run.log, line 2: the log ends without a line of a compression run"
    )
