"""Reports: as text, as JSON that obeys its schema, as annotations, and as errors."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import unhurried
from traces import CONTROLS, DATA, check, lines, row

from lifecycle import (
    EventType,
    ExpectationError,
    IllegalEventError,
    LifecycleError,
    TraceFormatError,
    UnknownEventError,
    trace,
)
from lifecycle.trace import text as written

SCHEMA = Path(__file__).parent.parent / "docs" / "schema" / "report.json"
VALIDATOR = jsonschema.Draft202012Validator(trace.json_schema())

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def text(*rows, **options):
    return str(check(*rows, name="run", **options)).splitlines()


# Text


def test_a_run_that_conforms_is_told_in_a_few_lines():
    assert text("I", row("C", ms=2), "BEBE", row("S", ms=1500), "KF") == [
        "run: run 1 conforms to compression",
        "  9 events in lines 1 to 9",
        "  2 batches, 2 steps, 1 layer, 1 calibration epoch",
        COUNTED,
        "  covers 5 of 12 states and 7 of 18 transitions of compression",
    ]


COUNTED = (
    "  INITIALIZE 1x, CALIBRATION_EPOCH_START 1x 2 ms, BATCH_START 2x, BATCH_END 2x, "
    "SEQUENTIAL_EPOCH_END 1x 1.5 s, CALIBRATION_EPOCH_END 1x, FINALIZE 1x"
)


def test_violations_are_told_in_the_words_of_a_live_engine():
    found = text("IBLPEBLEF", protocol="training")
    assert found[:6] == [
        "run: run 1 violates training: 1 violation",
        "  line 5: BATCH_END is not allowed in session.batch.step.pending",
        "    event 5, global_batch=0, global_step=0, sequential epoch 0",
        "    allowed here: OPTIM_POST_STEP",
        "    before it: BATCH_START, LOSS_CALCULATED, OPTIM_PRE_STEP",
        "    hint: OPTIM_POST_STEP is missing before it, or OPTIM_PRE_STEP in line 4 is superfluous",
    ]


def test_how_a_run_ended_and_what_is_missing_is_told():
    assert text("IC", row("S", ok=False, error="RuntimeError: no"))[:3] == [
        "run: run 1 is incomplete: it ends in session.calibration.open and obeys compression so far",
        "  the handler of SEQUENTIAL_EPOCH_END failed in line 3: RuntimeError: no",
        "  CALIBRATION_EPOCH_END, FINALIZE are missing at the end",
    ]
    assert text("I")[1] == "  FINALIZE is missing at the end"


def test_a_run_with_violations_that_did_not_end_is_told_as_both():
    assert text("II", protocol="training")[0] == (
        "run: run 1 violates training: 1 violation, and is incomplete: it ends in session.ready"
    )


def test_of_several_handlers_that_failed_the_last_is_told():
    failed = row("S", ok=False, error="E")
    assert "  the handler of SEQUENTIAL_EPOCH_END failed in line 4, the last of 2: E" in text("IC", failed, failed)


def test_why_a_run_was_aborted_is_told():
    assert text("I", row("a", error="RuntimeError: no"))[1] == "  it was aborted: RuntimeError: no"


def test_interleaved_runs_are_told():
    found = text("ICICBBEESSKKFF", protocol="sequential")
    assert found[1] == "  it looks like 2 runs whose events are interleaved, each of which conforms"


def test_what_became_of_events_that_were_not_taken_is_told():
    found = text("I(B)EBLEF", protocol="training")
    assert "    before it: INITIALIZE" in found
    assert "  6 events in lines 1 to 9, 1 superfluous, 1 ignored" in found


def test_a_run_that_was_joined_is_told():
    header = {"header": {"version": 1, "protocol": "training"}}
    first = {"event": "batch_start", "state": "session.batch.started", "position": 7}
    assert "  2 events in lines 1 to 3, seen from event 7 on" in text(header, first, {"event": "loss_calculated"})


def loaded(position, **more):
    return {"control": "load", "state": "session.ready", "position": position, "global_step": 2, **more}


def test_a_run_that_was_resumed_is_told():
    header = {"header": {"version": 1, "protocol": "training"}}
    found = text(header, loaded(7), "F", protocol="training")
    assert found[1:3] == [
        "  resumed at session.ready, global_batch=0, global_step=2 in line 2",
        "  1 event in lines 1 to 3, seen from event 8 on",
    ]
    assert text(header, "IBL", loaded(1), "F", protocol="training")[1].endswith(" in line 5, 2 events before it undone")
    assert text(header, "I", loaded(2), loaded(3), "F", protocol="training")[1].endswith(
        " in line 4, the last of 2 times, 1 event before it not in the trace"
    )


def test_names_that_are_no_events_are_told_last():
    assert text("IF", "??")[-1] == "run: names that are no events: note 2x"
    many = text("IF", *({"event": f"note {number}"} for number in range(11)))[-1]
    assert many.endswith("note 9 1x, and more")


def test_what_a_trace_says_cannot_begin_another_line_or_move_the_cursor():
    name = {"event": "\x1b[31m\r\n::error::no"}
    assert text("IF", name)[-1] == r"run: names that are no events: \x1b[31m\r\n::error::no 1x"
    refused = {"rejected": "x", "reason": "UnknownEventError", "error": "hint: \r\x9b"}
    header = {"header": {"version": 1, "protocol": "training"}}
    assert text(header, refused, "IF", protocol="training")[1].startswith(r"  line 2: \r\x9b, and was refused")


def test_of_very_many_violations_and_runs_some_are_told():
    found = text("I", "L" * 25, "F", protocol="data_free")
    assert "  and 5 more violations" in found
    assert sum(line.startswith("  line ") for line in found) == written.VIOLATIONS_SHOWN
    assert text("I" + "L" * 21 + "F", protocol="data_free")[-5] == "  and 1 more violation"
    assert text("IF" * 103)[-1] == "run: 3 more runs"


def test_the_smallest_protocols_are_told():
    assert text("IF", protocol="auto")[0] == "run: run 1 conforms to data_free, sequential, training"


def test_a_refusal_is_told_with_its_error():
    header = {"header": {"version": 1, "protocol": "training"}}
    refused = {
        "rejected": "finalize",
        "reason": "IllegalEventError",
        "error": "no\n  hint: INITIALIZE is missing before it",
    }
    assert text(header, refused, "IF", protocol="training")[1] == (
        "  line 2: FINALIZE is not allowed in created, and was refused with IllegalEventError"
    )


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [(1, "1 ns"), (999, "999 ns"), (1000, "1 us"), (999_900, "1 ms"), (1_234_567, "1.23 ms"), (61 * 10**9, "61 s")],
)
def test_times_are_told_in_a_unit_that_suits_them(nanoseconds, said):
    assert written._duration(nanoseconds) == said


# JSON


def test_the_schema_in_the_documentation_is_that_of_the_code():
    assert json.loads(SCHEMA.read_text()) == trace.json_schema()


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(trace.json_schema())


@pytest.mark.parametrize("file", sorted(DATA.iterdir()), ids=lambda file: file.name)
@pytest.mark.parametrize("protocol", [None, "auto", "data_free", "upstream"])
def test_the_json_of_a_real_trace_obeys_the_schema(file, protocol):
    VALIDATOR.validate(json.loads(trace.check(file, protocol).to_json()))


@unhurried
@given(letters=st.text("ICBLPOESKF" + "".join(CONTROLS), max_size=40), protocol=st.sampled_from(["auto", "training"]))
def test_the_json_of_any_trace_obeys_the_schema_and_has_no_field_that_it_does_not_name(letters, protocol):
    try:
        report = check(letters, protocol=protocol, strict_names=True, expect={"batches": 1})
    except TraceFormatError:
        return
    found = json.loads(report.to_json())
    VALIDATOR.validate(found)
    named = trace.json_schema()["$defs"]
    assert found.keys() == named["Report"]["properties"].keys()
    assert all(run.keys() == named["Run"]["properties"].keys() for run in found["runs"])


def test_the_json_of_a_resumed_run_obeys_the_schema():
    found = json.loads(check({"header": {"version": 1, "protocol": "training"}}, loaded(7), "F").to_json())
    VALIDATOR.validate(found)
    counters = {"global_batch": 0, "global_step": 2, "sequential_epochs": 0}
    resumed = {"line": 2, "state": "session.ready", "counters": counters, "undone": 0, "unseen": 0}
    assert found["runs"][0]["resumed"] == resumed


def test_json_names_events_by_their_values():
    found = json.loads(check("II", protocol="training").to_json())
    (run,) = found["runs"]
    assert found["ok"] is False
    assert (run["violations"][0]["event"], run["counts"]) == ("initialize", {"initialize": 1})


def test_a_report_is_frozen_and_can_be_pickled():
    report = check("II", protocol="training")
    with pytest.raises(AttributeError):
        report.ok = True
    assert pickle.loads(pickle.dumps(report)) == report  # noqa: S301 # its own


# GitHub


def test_annotations_of_a_workflow_are_at_the_lines_of_the_trace():
    report = check("IBLPOBLEF", "?", protocol="training", name="runs/a,b:1%.jsonl")
    violation = (
        "::error file=runs/a%2Cb%3A1%25.jsonl,line=6,title=line 6%3A BATCH_START is not allowed in "
        "session.batch.step.taken::event 6, global_batch=0, global_step=1, sequential epoch 0%0A"
        "allowed here: BATCH_END%0Abefore it: LOSS_CALCULATED, OPTIM_PRE_STEP, OPTIM_POST_STEP%0A"
        "hint: BATCH_END is missing before it"
    )
    note = "::notice file=runs/a%2Cb%3A1%25.jsonl,line=1,title=names that are no events::note"
    assert written.to_github(report).splitlines() == [violation, note]


@pytest.mark.parametrize(("allow", "level"), [(False, "error"), (True, "warning")])
def test_a_run_that_did_not_end_is_annotated_with_why(allow, level):
    title = "title=run 1 is incomplete%3A it ends in session.calibration.open and obeys compression so far"
    report = check("IC", name="run")
    assert written.to_github(report, allow_incomplete=allow) == (
        f"::{level} file=run,line=2,{title}::missing at the end: CALIBRATION_EPOCH_END, FINALIZE"
    )


def test_a_handler_that_failed_or_the_reason_of_an_abort_is_annotated():
    failed = written.to_github(check("IC", row("S", ok=False, error="E: 1\n2")))
    assert failed.endswith("::the handler of SEQUENTIAL_EPOCH_END failed: E: 1%0A2")
    assert written.to_github(check("I", row("a", error="no"))).endswith("::no")


def test_a_run_that_conforms_has_no_annotation():
    assert written.to_github(check("IF")) == ""


def test_violations_that_are_not_kept_are_annotated_as_a_number():
    found = written.to_github(check("I", "L" * 1003, "F", protocol="data_free")).splitlines()
    assert len(found) == 1001
    assert found[-1].endswith("::3 more violations")


# Errors


def raised(report, **options):
    with pytest.raises(ExceptionGroup) as caught:
        report.raise_if_failed(**options)
    return caught.value


def test_all_violations_are_raised_in_one_group():
    group = raised(check("IBLPOBLPOF", protocol="training", name="run"))
    assert str(group).startswith("run: 1 of 1 runs did not go well, with 2 violations")
    first, second = group.exceptions
    assert type(first) is type(second) is IllegalEventError
    assert str(first).splitlines() == [
        "BATCH_START is not allowed in session.batch.step.taken",
        "  event 6, global_batch=0, global_step=1, sequential epoch 0",
        "  allowed here: BATCH_END",
        "  before it: LOSS_CALCULATED, OPTIM_PRE_STEP, OPTIM_POST_STEP",
        "  hint: BATCH_END is missing before it",
    ]


def test_every_kind_of_violation_is_raised_as_its_own_error():
    report = check(
        "IC", {"event": "BATCH_STRAT"}, "KF", strict_names=True, expect={"batches": 2, "sequential_epochs": 0}
    )
    unknown, missed = raised(report).exceptions
    assert type(unknown) is UnknownEventError
    assert str(unknown) == "'BATCH_STRAT' is not an event; did you mean 'batch_start'?"
    assert type(missed) is ExpectationError
    assert missed.misses == {"batches": (2, 0)}


def test_a_run_that_did_not_end_is_raised_unless_that_is_allowed():
    report = check("IC")
    (error,) = raised(report).exceptions
    assert type(error) is LifecycleError
    assert str(error) == "run 1 is incomplete: it ends in session.calibration.open"
    report.raise_if_failed(allow_incomplete=True)


def test_nothing_is_raised_of_a_trace_that_is_fine():
    check("IF").raise_if_failed()


def test_a_violation_compares_with_members_and_with_their_values():
    (violation,) = check("II", protocol="training").runs[0].violations
    assert violation.event == EventType.INITIALIZE == "initialize"


def test_a_trace_without_a_name_is_called_one():
    assert trace.check(lines("IF")).name == "<trace>"
