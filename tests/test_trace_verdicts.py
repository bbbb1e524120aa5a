"""The verdicts on real runs, recorded from LLM Compressor."""

from pathlib import Path

import pytest

from lifecycle import EventType, protocols, trace

DATA = Path(__file__).parent / "data"
CRASHED = DATA / "oneshot_CRASH_sequential_gptq_w4a16.jsonl"
TRAINING = DATA / "llmc06_train_ga1_n3_constprune.jsonl"
LOG = DATA / "llmcompressor-0.14.0.1-sequential-gptq.log"
SMALLEST = {
    "llmc06_oneshot_sequential_gptq": ("sequential",),
    "oneshot_basic_w8a8": ("data_free", "sequential"),
    "oneshot_datafree_fp8dynamic": ("data_free", "sequential"),
    "oneshot_independent_smoothquant_gptq": ("sequential",),
    "oneshot_norecipe_default": ("data_free", "sequential", "training"),
    "oneshot_sequential_gptq_w8a8": ("sequential",),
}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_run_that_went_well_conforms_to_compression(name):
    report = trace.check(DATA / f"{name}.jsonl")
    assert (report.ok, report.run_count, report.runs[0].protocol) == (True, 1, "compression")


@pytest.mark.parametrize(("name", "smallest"), SMALLEST.items())
def test_the_smallest_protocols_that_a_run_obeys_are_named(name, smallest):
    assert trace.check(DATA / f"{name}.jsonl", "auto").runs[0].conforms_to == smallest


def test_the_run_that_crashed_is_incomplete_in_an_open_epoch_and_names_the_handler_that_failed():
    report = trace.check(CRASHED)
    (run,) = report.runs
    assert not report.ok
    assert (run.status, run.state, run.violation_count) == ("incomplete", "session.calibration.open", 0)
    assert run.failed.event is EventType.SEQUENTIAL_EPOCH_END
    assert (run.failed.line, run.failed.error.partition(":")[0]) == (5, "RuntimeError")


def test_the_old_training_run_violates_training_at_its_second_initialize():
    report = trace.check(TRAINING, "training")
    (run,) = report.runs
    (violation,) = run.violations
    assert (violation.event, violation.line, violation.position) == (EventType.INITIALIZE, 2, 2)
    assert report.notes == {"<opt.step pre>": 6, "<opt.step post>": 6}


def test_the_old_training_run_conforms_to_upstream():
    assert trace.check(TRAINING, "upstream").ok


def test_the_log_of_llm_compressor_is_read_as_the_run_that_it_tells_of():
    report = trace.check(LOG)
    (run,) = report.runs
    assert report.ok
    assert {event.name: count for event, count in run.counts.items()} == {
        "INITIALIZE": 1,
        "CALIBRATION_EPOCH_START": 1,
        "SEQUENTIAL_EPOCH_END": 4,
        "CALIBRATION_EPOCH_END": 1,
        "FINALIZE": 1,
    }


@pytest.mark.parametrize("name", SMALLEST)
def test_the_events_of_a_trace_are_legal_for_the_protocol_itself_too(name):
    events = [record.event for record in trace.read(DATA / f"{name}.jsonl") if record.event.upper() != "RESET"]
    assert protocols.COMPRESSION.accepts(events)
