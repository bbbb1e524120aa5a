"""The checker: runs told apart, counted by the engine's own rules, and what is not legal in them."""

from __future__ import annotations

import contextlib
import enum
import io
from dataclasses import asdict

import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st
from runs import EVERY, complete_runs, fire, unhurried
from traces import check, lines, only_run, row, said, word

from lifecycle import (
    EventType,
    Lifecycle,
    LifecycleError,
    Protocol,
    TraceFormatError,
    Transition,
    Update,
    protocols,
    trace,
)
from lifecycle.trace.checking import replay
from lifecycle.trace.checking import traces as checking
from lifecycle.trace.checking.causes import LOOK_AHEAD
from lifecycle.trace.checking.runs import RECORDS_AHEAD

HEADER = {"header": {"version": 1, "protocol": "training"}}


def verdicts(*rows, **options):
    return [run.verdict for run in check(*rows, **options).runs]


# Legal runs


@unhurried
@given(data=st.data(), protocol=st.sampled_from(EVERY))
def test_a_legal_run_conforms_and_is_counted_as_the_engine_counts_it(data, protocol):
    events = data.draw(complete_runs(protocol))
    batches_per_step = data.draw(st.sampled_from([1, 2, 3]))
    lc = Lifecycle(protocol, batches_per_step=batches_per_step)
    for event in events:
        lc.fire(event, loss=1)
    header = {"header": {"version": 1, "protocol": protocol.name, "batches_per_step": batches_per_step}}
    run = only_run(header, *({"event": event.value} for event in events), protocol=protocol)
    progress = asdict(lc.progress)
    names = ("calibration_epochs", "sequential_epochs", "total_sequential_epochs", "batches")
    assert run.verdict == "conforms"
    assert run.state == lc.state
    assert run.events == len(events) == sum(run.counts.values())
    assert run.counters == {
        "global_step": lc.event.global_step,
        "global_batch": lc.event.global_batch,
        **{name: progress[name] for name in names},
    }


@unhurried
@given(data=st.data(), protocol=st.sampled_from(EVERY))
def test_the_transitions_and_the_states_of_a_run_are_those_that_it_took(data, protocol):
    events = data.draw(complete_runs(protocol))
    state, taken = protocol.initial, []
    for event in events:
        taken.append((state, event))
        state = protocol.target(state, event)
    run = only_run(*({"event": event.value, "ms": 2} for event in events), protocol=protocol)
    counts = {(count.source, count.event): (count.count, count.duration) for count in run.transitions if count.count}
    assert counts == {move: (taken.count(move), taken.count(move) * 2_000_000) for move in taken}
    assert set(run.visited) == {protocol.initial, state, *(source for source, _ in taken)}
    assert sorted((*run.visited, *run.unvisited)) == sorted(protocol.states)
    assert [(count.source, count.event, count.target) for count in run.transitions] == [
        (move.source, move.event, move.target) for move in protocol.transitions
    ]


@pytest.mark.parametrize("spelling", ["calibration_epoch_start", "CALIBRATION_START", "EventType.CALIBRATION_START"])
def test_every_spelling_of_an_event_is_that_event(spelling):
    run = only_run("I", {"event": spelling}, "KF")
    assert run.counts[EventType.CALIBRATION_EPOCH_START] == 1


def test_time_is_summed_for_each_event():
    run = only_run(row("I", ms=1), row("C"), row("S", ms=2.5), row("S", ms=0.5), "KF")
    assert run.durations == {EventType.INITIALIZE: 1_000_000, EventType.SEQUENTIAL_EPOCH_END: 3_000_000}


def test_a_skipped_step_is_not_counted():
    run = only_run("IBLP", row("O", skipped=True), "EBLP", row("O"), "EF")
    assert run.counters["global_step"] == 1


@unhurried
@given(data=st.data())
def test_a_trace_is_checked_alike_however_it_comes(data):
    letters = data.draw(
        st.text("ICBLPOESKFr?a()", min_size=1, max_size=60).filter(lambda text: set(text) & set("ICBLPOESKFr"))
    )
    pieces = data.draw(st.lists(st.integers(1, 20), max_size=10))
    rows = list(trace.read(lines(letters)))
    parts = []
    for piece in pieces:
        parts.append(rows[:piece])
        rows = rows[piece:]
    ongoing = checking.Checking("<trace>", "compression")
    for part in [*parts, rows]:
        ongoing.feed(part)
    try:
        whole = check(letters)
    except TraceFormatError:
        with pytest.raises(TraceFormatError):
            ongoing.end()
    else:
        assert ongoing.end() == whole


# How runs end, and where the next begins


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("ICSKF", ["complete"]),
        ("rICSKF", ["complete"]),
        ("rICSKFr", ["complete"]),
        ("rr", ["incomplete"]),
        ("I", ["incomplete"]),
        ("IC", ["incomplete"]),
        ("ICrIF", ["abandoned", "complete"]),
        ("IFIF", ["complete", "complete"]),
        ("IF?IF", ["complete", "complete"]),
        ("IFrrIF", ["complete", "complete"]),
        ("ICa", ["aborted"]),
        ("ICarIF", ["aborted", "complete"]),
        ("ICaIF", ["aborted", "complete"]),
        ("IFa", ["complete"]),
    ],
)
def test_runs_are_told_apart_and_how_they_ended_is_said(letters, expected):
    assert [run.status for run in check(letters).runs] == expected


def test_what_is_missing_at_the_end_and_what_may_come_next_is_said():
    run = only_run("ICB")
    assert (run.state, word(run.allowed), word(run.to_finish)) == ("session.calibration.batch.started", "LE", "EKF")
    assert only_run("IF").to_finish == ()


def test_after_an_abort_nothing_is_allowed_and_why_it_was_aborted_is_said():
    run = only_run("IC", row("a", error="RuntimeError: no"))
    assert (run.allowed, run.to_finish, run.error) == ((), (), "RuntimeError: no")
    assert only_run("ICa").error == "it does not say why"


def test_runs_have_the_lines_where_they_begin_and_end():
    found = [(run.number, run.first_line, run.last_line) for run in check("?IF?rIF", "IF").runs]
    assert found == [(1, 1, 4), (2, 5, 7), (3, 8, 9)]


def test_a_run_that_begins_anew_is_counted_anew():
    first, second = check("ICBEBEKFrICBEKF").runs
    assert (first.counters["global_batch"], second.counters["global_batch"]) == (2, 1)
    assert (first.counts[EventType.BATCH_START], second.counts[EventType.BATCH_START]) == (2, 1)


def test_the_handler_that_failed_is_named_with_its_line_and_state():
    run = only_run("IC", row("S", ok=False, error="E: 1"), row("S", ok=False, error="E: 2"))
    assert run.failed == trace.Failure(EventType.SEQUENTIAL_EPOCH_END, 4, "session.calibration.open", "E: 2")
    assert run.failure_count == 2
    assert only_run("I", row("C", ok=False)).failed.error == "it does not say why"


def test_a_handler_that_failed_at_an_illegal_event_or_at_a_judged_one_is_named_too():
    illegal = only_run("I", row("I", ok=False, error="E: 1"), "F")
    assert (illegal.failed.line, illegal.violation_count) == (2, 1)
    judged = only_run("IC", row("K", ok=False, error="E: 1"), "F", expect={"calibration_epochs": 1})
    assert (judged.failed.line, judged.violation_count) == (3, 0)
    swapped = only_run("IBLO", row("P", ok=False, error="E: 1"), "EF", protocol="training")
    assert (swapped.failed.line, swapped.violation_count) == (5, 1)


def test_a_trace_in_which_nothing_happens_is_bad_input():
    with pytest.raises(
        TraceFormatError, match=r"^run, line 2: the trace ends without an event; its 2 names are no events"
    ):
        check("??", name="run")
    with pytest.raises(TraceFormatError, match=r"^<trace>, line 2: the trace ends without an event$"):
        check("a(")


# Names that are no events


def test_names_that_are_no_events_are_noted_and_counted():
    report = check("?I?", {"event": "other"}, "F")
    assert (report.ok, report.notes, report.note_count) == (True, {"note": 2, "other": 1}, 3)


def test_of_very_many_names_some_are_kept_and_all_are_counted():
    many = checking.NOTES_KEPT + 5
    report = check("IF", *({"event": f"note {number}"} for number in range(many)))
    assert (len(report.notes), report.note_count) == (checking.NOTES_KEPT, many)


def test_a_very_long_name_is_kept_short():
    report = check("IF", {"event": "x" * 10_000})
    assert list(report.notes) == ["x" * replay.TEXT_KEPT + "..."]


def test_with_strict_names_a_name_that_is_no_event_is_a_violation():
    run = only_run("I", {"event": "BATCH_STRAT"}, "F", strict_names=True)
    (violation,) = run.violations
    assert (violation.kind, violation.line, violation.event) == ("unknown", 2, "BATCH_STRAT")
    assert violation.cause == "'BATCH_STRAT' is not an event; did you mean 'batch_start'?"
    assert run.verdict == "violates"


def test_strict_names_do_not_mind_what_controls_a_run():
    assert check("rI()FrIF", strict_names=True).ok


def test_events_of_ones_own_and_updates_that_need_a_payload_do_no_harm():
    class Saving(str, enum.Enum):
        SAVE = "reset"

    def count(event, progress, payload):
        event.global_step += payload["steps"]

    saving = Transition("session.ready", Saving.SAVE, "session.ready", update=Update("steps", count))
    own = protocols.TRAINING.extend("saving", vocabularies=[Saving], transitions=[saving])
    run = only_run("I", {"event": "SAVE"}, {"event": "reset"}, "F", protocol=own)
    assert (run.verdict, run.counts[Saving.SAVE], run.counters["global_step"]) == ("conforms", 2, 0)


# Expectations


@pytest.mark.parametrize(
    ("letters", "expect", "line", "hint"),
    [
        ("ICBESKF", {"sequential_epochs": 2}, 6, "sequential_epochs: expected 2, counted 1"),
        ("ICBESKF", {"batches": 3}, 6, "batches: expected 3, counted 1"),
        ("ICBESKF", {"calibration_epochs": 2}, 7, "calibration_epochs: expected 2, counted 1"),
        ("IBLPOEF", {"steps": 2, "batches": 1}, 7, "steps: expected 2, counted 1"),
    ],
)
def test_a_count_that_is_not_as_expected_is_a_violation(letters, expect, line, hint):
    run = only_run(letters, expect=expect)
    (violation,) = run.violations
    assert (violation.kind, violation.line, violation.cause) == ("expectation", line, hint)
    assert run.status == "complete"
    assert run.counts == only_run(letters).counts


def test_counts_that_are_as_expected_are_no_violation():
    assert only_run("ICBESBESKF", expect={"sequential_epochs": 2, "batches": 2, "steps": 2}).ok


def test_an_expectation_that_does_not_exist_is_an_error():
    with pytest.raises(LifecycleError, match="'layers' is not a count"):
        check("IF", expect={"layers": 3})


# Suspension


def test_events_that_come_while_a_run_is_suspended_are_ignored():
    run = only_run("I(BBE(L)E)BLPOEF", protocol="training")
    assert (run.verdict, run.ignored, run.events) == ("conforms", 5, 7)


def test_events_that_cannot_be_suspended_count_all_the_same():
    run = only_run("I(CBS)KF")
    assert (run.verdict, run.ignored, run.counters["total_sequential_epochs"]) == ("conforms", 1, 1)


def test_a_resume_too_many_does_no_harm():
    assert only_run("I))(B)BLEF").verdict == "conforms"


# Violations


def test_a_violation_says_where_it_is_and_what_would_be_right():
    run = only_run("IBLEBLPBLEF", protocol="training")
    (violation,) = run.violations
    assert (violation.kind, violation.line, violation.position, violation.where) == ("missing", 8, 8, 8)
    assert (violation.event, violation.state) == (EventType.BATCH_START, "session.batch.step.pending")
    assert (word(violation.allowed), word(violation.before), word(violation.missing)) == ("O", "BLP", "OE")
    assert violation.counters == {"global_batch": 1, "global_step": 0, "sequential_epochs": 0}
    assert violation.cause == "OPTIM_POST_STEP, BATCH_END are missing before it"


def test_what_is_missing_counts_as_if_it_had_come():
    run = only_run("IBLPBLPOEF", protocol="training")
    assert run.counters["global_step"] == run.counters["global_batch"] == 2
    assert (run.events, run.counts[EventType.BATCH_END]) == (10, 1)
    assert "session.batch.step.taken" in run.visited


def test_what_is_superfluous_does_not_count():
    run = only_run("IBLPOEEF", protocol="training")
    assert (run.counters["global_batch"], run.superfluous, run.events) == (1, 1, 8)


def test_what_is_missing_further_back_is_counted_from_there():
    run = only_run("IBESKF")
    assert said(run) == [(3, "CALIBRATION_EPOCH_START is missing before BATCH_START in line 2")]
    assert run.violations[0].where == 2
    assert run.counters == only_run("ICBESKF").counters
    taken = {(count.source, word([count.event])) for count in run.transitions if count.count}
    assert ("session.ready", "B") not in taken
    assert ("session.calibration.open", "B") in taken


def test_a_swap_is_counted_in_the_right_order():
    run = only_run("IBLOP?EF", protocol="training")
    assert said(run) == [(4, "it and OPTIM_PRE_STEP in line 5 have changed places")]
    assert (run.counters["global_step"], run.events, run.superfluous) == (1, 7, 0)


def test_what_is_between_two_swapped_events_is_noted():
    report = check("IBLO?PEF", protocol="training")
    assert (report.notes, report.violation_count) == ({"note": 1}, 1)


def test_a_superfluous_event_further_back_is_named():
    run = only_run("IPBLPOEF", protocol="training")
    assert said(run) == [(2, "it is superfluous")]
    run = only_run("ICKFESKF", protocol="compression")
    assert run.violation_count


def test_an_event_after_the_end_says_that_the_run_was_over():
    assert said(only_run("IFB")) == [(3, "it is superfluous: the run was over")]


def test_an_event_after_an_abort_says_that_the_run_was_aborted():
    run = only_run("IaB")
    assert said(run) == [(3, "it is superfluous: the run was aborted")]
    assert run.violations[0].allowed == ()


FORK = Protocol(
    "fork",
    states=["created", "left", "between", "right", "done"],
    transitions=[
        Transition("created", "initialize", "left"),
        Transition("left", "sequential_epoch_end", "left"),
        Transition("left", "batch_start", "between"),
        Transition("between", "batch_end", "right"),
        Transition("right", "sequential_epoch_end", "right"),
        Transition("left", "calibration_epoch_end", "done"),
        Transition("right", "finalize", "done"),
    ],
    initial="created",
    final=["done"],
)
"""Only the last event tells whether a BATCH_END was superfluous, or came after a BATCH_START that is missing."""


@pytest.mark.parametrize("between", ["", "?", "???"])
def test_an_explanation_looks_eight_events_ahead_whatever_is_between_them(between):
    seen, unseen = ("IE" + between.join("S" * (LOOK_AHEAD - 1 + more) + "K") for more in (0, 1))
    assert LOOK_AHEAD == 8
    assert [cause for _, cause in said(only_run(seen, protocol=FORK))] == ["it is superfluous"]
    assert said(only_run(unseen, protocol=FORK))[0] == (2, "BATCH_START is missing before it")


def test_an_explanation_does_not_wait_for_ever_for_events_that_do_not_come():
    ongoing = checking.Checking("<trace>", "training")
    ongoing.feed(list(trace.read(lines("II"))))
    notes = list(trace.read(lines("?" * (RECORDS_AHEAD + 1))))
    for note in notes:
        ongoing.feed([note])
        waiting = ongoing._checkers[0]
        assert len(waiting._buffer) <= RECORDS_AHEAD + 2
    assert waiting._run.violation_count == 1


def test_the_end_of_a_run_ends_what_an_explanation_sees():
    first, second = check("IBLEBLPrIBLEF", protocol="training").runs
    assert (first.status, first.violation_count, second.verdict) == ("abandoned", 0, "conforms")
    assert verdicts("IBFIF", protocol="training") == ["violates", "conforms"]


def test_of_very_many_violations_some_are_kept_and_all_are_counted():
    many = replay.VIOLATIONS_KEPT + 7
    report = check("I", "E" * many, "F", protocol="upstream")
    assert report.violation_count == 0
    report = check("I", "L" * many, "F", protocol="data_free")
    assert (report.violation_count, len(report.runs[0].violations)) == (many, replay.VIOLATIONS_KEPT)
    assert report.runs[0].superfluous == many


def test_of_very_many_runs_those_that_are_not_fine_are_kept_and_all_are_counted():
    fine, bad = "IF", "IFF"
    report = check(fine * 60, bad * 3, fine * 60, bad * 60, fine, bad * 60)
    assert (report.run_count, report.failed_run_count, report.violation_count) == (244, 123, 123)
    assert len(report.runs) == checking.RUNS_KEPT
    assert [run.ok for run in report.runs].count(False) == 100
    assert [run.number for run in report.runs] == sorted(run.number for run in report.runs)


def test_all_runs_together_keep_no_more_violations_than_one():
    report = check(("I" + "L" * 400 + "F") * 4, protocol="data_free")
    assert [len(run.violations) for run in report.runs] == [400, 400, 200, 0]
    assert [run.violation_count for run in report.runs] == [400] * 4


# Journals


def test_the_runs_of_a_journal_obey_the_protocol_that_it_was_written_with():
    (run,) = trace.check(lines(HEADER, "IF")).runs
    assert run.protocol == "training"
    (run,) = trace.check(lines({"header": {"version": 1, "protocol": "training+repeat_steps"}}, "IBLPOPOEF")).runs
    assert (run.protocol, run.verdict) == ("training+repeat_steps", "conforms")


def test_other_traces_obey_compression():
    assert trace.check(lines("IF")).runs[0].protocol == "compression"
    assert trace.check(lines("IBLPOPOEF"), repeat_steps=True).ok


def test_the_protocol_that_is_asked_for_goes_before_that_of_the_journal():
    assert only_run(HEADER, "ICKF", protocol="data_free").verdict == "conforms"


def test_steps_of_several_invocations_are_counted_as_the_journal_says():
    header = {"header": {"version": 1, "protocol": "training", "invocations_per_step": 2}}
    run = only_run(header, "IBLPOPOEF", protocol="training")
    assert (run.verdict, run.protocol, run.counters["global_step"]) == ("conforms", "training+repeat_steps", 1)
    assert only_run(header, "ICKF", protocol="data_free").ok


def test_the_expectations_of_a_journal_count_unless_others_are_given():
    header = {"header": {"version": 1, "protocol": "training", "expect": {"steps": 2}}}
    assert trace.check(lines(header, "IBLPOEF")).violation_count == 1
    assert trace.check(lines(header, "IBLPOEF"), expect={}).ok


def test_a_journal_of_a_protocol_of_ones_own_needs_to_be_told_where_that_is():
    with pytest.raises(TraceFormatError, match="with protocol 'mine', which is not built in; say where"):
        trace.check(lines({"header": {"version": 1, "protocol": "mine"}}, "IF"))


def test_a_journal_that_has_only_its_first_line_is_incomplete():
    run = only_run(HEADER)
    assert (run.status, run.state, run.events, run.first_line, run.last_line) == ("incomplete", "created", 0, 1, 1)


def test_every_header_begins_a_run():
    assert [run.status for run in check(HEADER, "I", HEADER, "IF").runs] == ["abandoned", "complete"]


def journal_of(lifecycle, *steps):
    """What a journal has of some steps, which may fail."""
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        lifecycle.attach(journal)
        for step in steps:
            with contextlib.suppress(LifecycleError, TypeError):
                step(lifecycle)
    return io.BytesIO(file.getvalue())


def fired(*letters, **payload):
    return [lambda lc, letter=letter: lc.fire(sequences.EVENT[letter], **payload) for letter in "".join(letters)]


def test_events_that_the_engine_refused_are_violations_that_changed_nothing():
    file = journal_of(Lifecycle("training"), *fired("IBLEPF", loss=1))
    (run,) = trace.check(file).runs
    (violation,) = run.violations
    assert (violation.kind, violation.reason, violation.position) == ("refused", "IllegalEventError", 5)
    assert (violation.event, violation.state) == (EventType.OPTIM_PRE_STEP, "session.ready")
    assert violation.cause == "BATCH_START, LOSS_CALCULATED are missing before it"
    assert (run.status, run.events, run.refused) == ("complete", 5, 1)


def test_a_payload_that_was_missing_is_a_violation():
    file = journal_of(Lifecycle("training"), *fired("IBL"))
    (violation,) = trace.check(file).runs[0].violations
    assert (violation.reason, violation.cause) == ("MissingPayloadError", "pass loss=..., and not None")
    assert type(violation.error).__name__ == "MissingPayloadError"


def test_what_is_no_event_and_was_refused_is_a_violation():
    file = journal_of(Lifecycle("training"), lambda lc: lc.fire("batch_begin"), lambda lc: lc.fire("x" * 3000))
    first, second = trace.check(file).runs[0].violations
    assert (first.event, first.cause) == (
        "batch_begin",
        "'batch_begin' is not an event of protocol 'training'; did you mean 'batch_end'?",
    )
    assert second.event == "x" * replay.TEXT_KEPT + "..."


def test_what_the_engine_let_through_is_judged_once():
    file = journal_of(Lifecycle("training", on_violation="record"), *fired("IBLPEF", loss=1))
    (run,) = trace.check(file).runs
    assert said(run) == [(7, "OPTIM_POST_STEP is missing before it")]
    assert run.refused == 0


def test_a_payload_that_was_missing_and_let_through_is_a_violation():
    file = journal_of(Lifecycle("training", on_violation="record"), *fired("IBLEF"))
    (run,) = trace.check(file).runs
    assert [(violation.kind, violation.reason) for violation in run.violations] == [("refused", "MissingPayloadError")]
    assert (run.refused, run.status) == (0, "complete")


def test_a_missed_expectation_that_was_let_through_is_a_violation_once():
    lc = Lifecycle(expect={"sequential_epochs": 2}, on_violation="record")
    (run,) = trace.check(journal_of(lc, *fired("ICSKF"))).runs
    assert [violation.kind for violation in run.violations] == ["expectation"]


def test_a_run_that_ends_with_an_error_in_a_session_is_aborted():
    def session(lc):
        with lc.session():
            raise TypeError("no model")

    (run,) = trace.check(journal_of(Lifecycle("training"), session)).runs
    assert (run.verdict, run.error) == ("aborted", "TypeError: no model")


# Saved states


def process(file, lc, saved, events, lost=""):
    """What a process adds to a journal: it loads a run, fires events, saves the run, and fires more that are lost."""
    journal = trace.Journal(file)
    lc.attach(journal)
    if saved is not None:
        lc.load_state_dict(saved)
    saved = fire(lc, events).state_dict()
    fire(lc, lost)
    journal._flush()
    return saved


def checked(file, protocol=None, **options):
    return trace.check(io.BytesIO(file.getvalue()), protocol, **options)


def test_a_run_that_goes_on_in_another_process_is_one_run():
    file = io.BytesIO()
    saved = process(file, Lifecycle("training"), None, "IBLPOEB")
    process(file, Lifecycle("training"), saved, "LPOEF")
    (run,) = checked(file).runs
    assert (run.verdict, run.events, run.first_position) == ("conforms", 12, 1)
    counters = {"global_batch": 1, "global_step": 1, "sequential_epochs": 0}
    assert run.resumed == trace.Resumption(10, "session.batch.started", counters, undone=0, unseen=0)
    assert (run.resumed_count, run.counters["global_step"]) == (1, 2)


def test_a_run_that_goes_on_in_another_file_is_checked_from_there():
    saved = fire(Lifecycle("training"), "IBLPOE").state_dict()
    file = io.BytesIO()
    process(file, Lifecycle("training"), saved, "BLEF")
    (run,) = checked(file).runs
    assert (run.verdict, run.events, run.first_position) == ("conforms", 4, 7)
    assert (run.resumed.line, run.resumed.state, run.resumed.unseen) == (2, "session.ready", 0)
    assert (run.counters["global_batch"], run.counters["global_step"]) == (2, 1)
    assert "created" in run.unvisited


def test_a_run_that_crashed_after_it_was_saved_goes_on_from_there():
    file = io.BytesIO()
    lc = Lifecycle("training")
    saved = process(file, lc, None, "IBLPOE", lost="BLP")
    lc.abort(RuntimeError("out of memory"))
    process(file, Lifecycle("training"), saved, "BLEF")
    (run,) = checked(file).runs
    assert (run.verdict, run.error, run.resumed.undone) == ("conforms", None, 3)
    assert (run.events, run.counters["global_batch"], run.counters["global_step"]) == (13, 2, 1)


def test_a_run_may_go_back_in_the_same_process_and_do_so_again():
    file = io.BytesIO()
    lc = Lifecycle("training")
    saved = process(file, lc, None, "IBLPOE")
    fire(lc, "BL")
    lc.load_state_dict(saved)
    lc.load_state_dict(saved)
    fire(lc, "B")
    lc.load_state_dict(saved)
    fire(lc, "F")
    (run,) = checked(file).runs
    assert (run.verdict, run.resumed_count, run.resumed.undone, run.events) == ("conforms", 3, 1, 10)


def test_events_between_that_are_not_in_the_trace_are_counted():
    file = io.BytesIO()
    process(file, Lifecycle("training"), None, "IBLPOE")
    process(file, Lifecycle("training"), fire(Lifecycle("training"), "IBLEBLEB").state_dict(), "LEF")
    (run,) = checked(file).runs
    assert (run.verdict, run.resumed.undone, run.resumed.unseen) == ("conforms", 0, 2)


def test_what_came_while_the_run_was_suspended_is_neither_undone_nor_unseen():
    file = io.BytesIO()
    lc = Lifecycle("training")
    process(file, lc, None, "IB")
    with lc.suspended("evaluation"):
        fire(lc, "BEBE")
    process(file, Lifecycle("training"), lc.state_dict(), "")
    (run,) = checked(file).runs
    assert (run.resumed.undone, run.resumed.unseen) == (0, 0)


@pytest.mark.parametrize("before", ["I", "IC", "ICB", "ICBE", "ICBEB", "ICBEBES", "ICBEBESBE"])
def test_a_journal_that_begins_during_a_run_has_all_that_is_counted(before):
    file = io.BytesIO()
    lc = Lifecycle("sequential", batches_per_step=2, expect={"sequential_epochs": 2, "batches": 4})
    whole = "ICBEBESBEBESKF"
    fire(lc, before)
    process(file, lc, None, whole.removeprefix(before))
    (run,) = checked(file).runs
    assert (run.verdict, run.first_position) == ("conforms", len(before) + 1)
    assert (run.counters["global_step"], run.counters["batches"]) == (2, 4)


def test_a_violation_after_a_saved_state_has_the_position_and_the_counters_of_the_run():
    saved = fire(Lifecycle("training"), "IBLPOE").state_dict()
    file = io.BytesIO()
    process(file, Lifecycle("training", on_violation="record"), saved, "LEF")
    (run,) = checked(file).runs
    (violation,) = run.violations
    assert (violation.position, violation.before, violation.counters["global_batch"]) == (7, (), 1)
    assert violation.cause == "BATCH_START is missing before it"


def test_a_run_that_goes_on_is_one_run_however_its_records_come():
    file = io.BytesIO()
    saved = process(file, Lifecycle("training"), None, "IBLPOE", lost="BLP")
    process(file, Lifecycle("training"), saved, "BLEF")
    ongoing = checking.Checking("<trace>")
    for record in trace.read(io.BytesIO(file.getvalue())):
        ongoing.feed([record])
    assert ongoing.end() == checked(file)


def test_a_run_that_was_suspended_when_its_process_died_is_not_when_it_goes_on():
    file = io.BytesIO()
    saved = process(file, Lifecycle("training"), None, "I")
    file.write(b'{"control":"suspend","state":"session.ready","position":1}\n')
    process(file, Lifecycle("training"), saved, "BLEF")
    (run,) = checked(file).runs
    assert (run.verdict, run.ignored, run.counters["global_batch"]) == ("conforms", 0, 1)


def test_a_first_line_begins_a_run_whatever_a_loading_after_it_claims_to_be():
    header = {"header": {"version": 1, "protocol": "compression"}}
    assert only_run(header, {"event": "ABORT", "control": "load"}).events == 0


def test_a_journal_that_ends_with_the_first_line_of_a_process_has_an_abandoned_run():
    assert [run.status for run in check(HEADER, "I", HEADER, protocol="training").runs] == ["abandoned"]


def test_positions_after_a_saved_state_are_those_of_the_run_and_not_of_the_trace():
    file = io.BytesIO()
    lc = Lifecycle("training", on_violation="record")
    saved = process(file, lc, None, "IBLPOE")
    fire(lc, "BLE")
    lc.load_state_dict(saved)
    fire(lc, "BEF")
    assert [violation.position for violation in checked(file).runs[0].violations] == [8]


def test_what_is_expected_is_counted_on_from_a_saved_state():
    options = {"expect": {"batches": 3, "sequential_epochs": 2}}
    saved = fire(Lifecycle(**options), "ICBEBES").state_dict()
    file = io.BytesIO()
    process(file, Lifecycle(**options), saved, "BESKF")
    assert checked(file).ok
    assert checked(file, "auto").runs[0].ok
    assert checked(file, expect={"batches": 4}).violation_count == 1


def test_a_complete_run_stays_complete_when_a_saved_state_is_loaded():
    file = io.BytesIO()
    lc = Lifecycle("training")
    saved = process(file, lc, None, "I")
    fire(lc, "F")
    lc.load_state_dict(saved)
    process(file, Lifecycle("training"), saved, "F")
    found = checked(file).runs
    assert [(run.verdict, run.events, run.resumed_count) for run in found] == [("conforms", 2, 0), ("conforms", 1, 2)]


def test_a_run_that_was_loaded_and_did_nothing_is_incomplete():
    file = io.BytesIO()
    lc = Lifecycle("training")
    saved = process(file, lc, None, "I")
    fire(lc, "F")
    lc.load_state_dict(saved)
    assert [run.verdict for run in checked(file).runs] == ["conforms", "incomplete"]


def test_with_another_configuration_a_loaded_run_is_another_run():
    file = io.BytesIO()
    process(file, Lifecycle("training"), None, "IBLE")
    saved = fire(Lifecycle("training", batches_per_step=2), "I").state_dict()
    process(file, Lifecycle("training", batches_per_step=2), saved, "F")
    assert [(run.verdict, run.first_position) for run in checked(file).runs] == [("abandoned", 1), ("conforms", 2)]


def test_a_run_that_was_aborted_before_it_was_saved_is_aborted_when_it_is_loaded():
    lc = fire(Lifecycle("training"), "I")
    lc.abort()
    file = io.BytesIO()
    process(file, Lifecycle("training"), lc.state_dict(), "")
    (run,) = checked(file).runs
    assert (run.verdict, run.error) == ("aborted", "it was aborted before it was saved")


def test_a_state_that_the_protocol_does_not_have_is_none_to_go_on_from():
    saved = fire(Lifecycle(), "ICB").state_dict()
    file = io.BytesIO()
    process(file, Lifecycle(), saved, "EKF")
    (run,) = checked(file, "data_free").runs
    assert (run.verdict, run.resumed.state) == ("violates", "session.calibration.batch.started")
    assert run.violations[0].state == "created"


def test_a_loaded_run_whose_progress_is_not_known_has_the_counters_of_its_record():
    loaded = {"control": "load", "state": "session.ready", "position": 9, "global_batch": 2, "calibration_epochs": 1}
    run = only_run(HEADER, loaded, "BLEF", protocol="training")
    assert (run.verdict, run.counters["global_batch"], run.counters["calibration_epochs"]) == ("conforms", 3, 1)


def test_the_name_of_a_loading_alone_is_no_event():
    assert check("I", {"event": "LOAD"}, "F").notes == {"LOAD": 1}


def test_nothing_before_a_saved_state_is_taken_to_be_interleaved_with_what_comes_after_it():
    file = io.BytesIO()
    lc = Lifecycle("data_free", on_violation="record")
    saved = process(file, lc, None, "IICCSSKK")
    assert checked(file).runs[0].violation_count
    lc.load_state_dict(saved)
    fire(lc, "F")
    assert checked(file).runs[0].interleaved == 0


@unhurried
@given(data=st.data(), protocol=st.sampled_from(EVERY))
def test_a_run_that_is_resumed_anywhere_conforms_and_is_counted_as_the_engine_counts_it(data, protocol):
    events = data.draw(complete_runs(protocol))
    crashed = data.draw(st.integers(0, len(events) - 1))
    at = data.draw(st.integers(0, crashed))
    first, second, lc = (Lifecycle(protocol, batches_per_step=2) for _ in range(3))
    file, new_file = io.BytesIO(), io.BytesIO()
    saved = process(file, first, None, events[:at], lost=events[at:crashed])
    process(file, second, saved, events[at:])
    process(new_file, lc, saved, events[at:])
    for each, count in (file, len(events) + crashed - at), (new_file, len(events) - at):
        (run,) = checked(each, protocol).runs
        assert (run.verdict, run.events, run.resumed_count) == ("conforms", count, 1)
        assert run.counters.items() <= {**asdict(lc.event), **asdict(lc.progress)}.items()
        assert run.resumed.undone == (crashed - at if each is file else 0)


@unhurried
@given(data=st.data(), draws=sequences.long_runs(50))
def test_a_journal_that_was_attached_during_a_run_is_checked_from_there(data, draws):
    lc = Lifecycle(data.draw(st.sampled_from(["compression", "sequential", "training"])))
    at = data.draw(st.integers(1, 20))
    file = io.BytesIO()
    journal = trace.Journal(file)
    events = 0
    for number, draw in enumerate(draws):
        if number == at:
            lc.attach(journal)
        if lc.status == "finalized":
            break
        event, payload = draw.choose(lc, lc.allowed)
        if payload == {"loss": None}:
            continue
        lc.fire(event, **payload)
        events += number >= at
    journal.close()
    if not events:
        return
    (run,) = trace.check(io.BytesIO(file.getvalue())).runs
    joined = lc.progress.accepted - events + 1
    assert (run.violation_count, run.state, run.events) == (0, lc.state, events)
    assert run.first_position == joined
    assert run.counters.items() <= {**asdict(lc.event), **asdict(lc.progress)}.items()


# Protocols that are chosen


def test_auto_names_the_smallest_protocols_that_each_run_obeys():
    report = check("IFrICBESKFrIBLPOEFrIBLLPOEFrIBBEFrICBEEBSKF", protocol="auto")
    assert [(run.protocol, run.conforms_to) for run in report.runs] == [
        ("data_free", ("data_free", "sequential", "training")),
        ("basic", ("basic", "sequential")),
        ("training", ("training",)),
        ("training_microbatched", ("training_microbatched",)),
        ("compression", ()),
        ("upstream", ("upstream",)),
    ]


def test_auto_may_repeat_steps():
    assert check("IBLPOPOEF", protocol="auto", repeat_steps=True).runs[0].conforms_to == ("training+repeat_steps",)


def test_auto_judges_expectations_too():
    run = only_run("ICBESKF", protocol="auto", expect={"batches": 2})
    assert (run.conforms_to, run.verdict, run.protocol) == ((), "violates", "compression")


@pytest.mark.parametrize("protocol", [3, object()])
def test_a_protocol_that_is_none_is_a_type_error(protocol):
    with pytest.raises(TypeError, match="protocol must be a Protocol or the name of one"):
        check("IF", protocol=protocol)


def test_a_protocol_without_an_optimizer_cannot_repeat_steps():
    with pytest.raises(LifecycleError, match="no optimizer events"):
        check("IF", protocol="data_free", repeat_steps=True)


def test_a_protocol_of_ones_own_whose_end_is_no_end_elsewhere_tells_runs_apart_by_resets():
    door = Protocol(
        "door",
        states=["shut", "open", "gone"],
        transitions=[
            Transition("shut", "batch_start", "open"),
            Transition("open", "batch_end", "shut"),
            Transition("shut", "batch_end", "gone"),
        ],
        initial="shut",
        final=["gone"],
    )
    assert verdicts("BEBEE", protocol=door) == ["conforms"]
    assert verdicts("BEErBEE", protocol=door) == ["conforms", "conforms"]
    assert verdicts("BEEBE", protocol=door) == ["violates"]


# Under way


def test_a_check_that_is_under_way_knows_whether_the_run_is_over():
    ongoing = checking.Checking("<trace>", "training")
    seen = []
    for letter in "IBLEFIa":
        ongoing.feed(list(trace.read(lines(letter))))
        seen.append(ongoing.over)
    assert seen == [False, False, False, False, True, False, True]


def test_a_violation_that_waits_is_explained_when_it_has_to_settle():
    found = []
    ongoing = checking.Checking("<trace>", "training", on_violation=found.append)
    ongoing.feed(list(trace.read(lines("IBLO"))))
    assert found == []
    ongoing.settle()
    assert [violation.cause for violation in found] == ["OPTIM_PRE_STEP is missing before it"]
    ongoing.feed(list(trace.read(lines("EF"))))
    assert ongoing.end().violation_count == 1


def test_with_auto_no_violation_is_told_early():
    found = []
    ongoing = checking.Checking("<trace>", "auto", on_violation=found.append)
    ongoing.feed(list(trace.read(lines("EEEEEEEEEEEEE"))))
    ongoing.end()
    assert found == []
