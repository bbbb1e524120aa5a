import io

import pytest
from drawing import FLAT, report, run

from lifecycle import IllegalEventError, Lifecycle, protocols, trace
from lifecycle.diagram import Rejection, Tally, Watch, overlay_of_lifecycle, overlay_of_report, overlay_of_trace
from lifecycle.trace.report import Failure, Violation


def violation(position, event="batch_end", state="open"):
    return Violation("superfluous", position, position, event, state, (), (), {}, "")


def test_a_run_that_was_checked_has_its_counts_and_times():
    overlay = overlay_of_report(report(run()), FLAT)
    assert overlay.tallies == {
        ("new", "INITIALIZE"): Tally(1, pytest.approx(5e-7)),
        ("open", "BATCH_START"): Tally(2, 3.0),
        ("open", "FINALIZE"): Tally(1, 0.0),
    }
    assert overlay.visited == {"new", "open", "done"}
    assert overlay.current == "done"


def test_a_run_that_was_checked_says_how_it_went():
    overlay = overlay_of_report(report(run()), FLAT)
    assert (overlay.name, overlay.verdict) == ("run.jsonl", "4 events, complete in done")


@pytest.mark.parametrize(("count", "words"), [(1, "1 violation"), (1200, "1,200 violations")])
def test_violations_are_counted(count, words):
    bad = run(verdict="violates", violation_count=count, violations=(violation(2),))
    assert overlay_of_report(report(bad), FLAT).verdict == f"4 events, {words}, complete in done"


def test_violations_of_one_kind_are_one_rejection_with_their_positions():
    bad = run(verdict="violates", violations=(violation(2), violation(5, "nonsense"), violation(7)))
    assert overlay_of_report(report(bad), FLAT).rejections == (
        Rejection("open", "BATCH_END", (2, 7)),
        Rejection("open", "nonsense", (5,)),
    )


def test_of_several_runs_the_first_that_is_not_fine_is_shown():
    runs = [run(), run(number=2, verdict="incomplete", state="open"), run(number=3, verdict="violates")]
    assert overlay_of_report(report(*runs), FLAT).name == "run.jsonl, run 2 of 3"


def test_of_several_runs_that_are_fine_the_last_is_shown():
    assert overlay_of_report(report(run(), run(number=2)), FLAT).name == "run.jsonl, run 2 of 2"


def test_a_trace_without_a_run_shows_that_nothing_was_visited():
    overlay = overlay_of_report(report(), FLAT)
    assert (overlay.verdict, overlay.tallies, overlay.visited) == ("no run", {}, frozenset())


def test_a_failed_handler_is_at_its_transition():
    bad = run(verdict="incomplete", state="open", failed=Failure("batch_start", 3, "open", "ValueError: no"))
    assert overlay_of_report(report(bad), FLAT).failures == {("open", "BATCH_START"): "ValueError: no"}


def test_a_trace_is_checked_and_shown():
    lc = Lifecycle("training")
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        lc.attach(journal)
        with lc.session():
            pass
    file.seek(0)
    overlay = overlay_of_trace(file, lc.protocol)
    assert overlay.verdict == "2 events, complete in finalized"
    assert {move: tally.count for move, tally in overlay.tallies.items() if tally.count} == {
        ("created", "INITIALIZE"): 1,
        ("session.ready", "FINALIZE"): 1,
    }


# A live run


def test_a_live_run_shows_where_it_stands():
    lc = Lifecycle("training")
    lc.initialize()
    overlay = overlay_of_lifecycle(lc)
    assert (overlay.verdict, overlay.current, overlay.tallies) == ("1 events, open", "session.ready", None)


def test_a_live_run_shows_the_violations_that_it_kept():
    lc = Lifecycle("training", on_violation="record")
    lc.initialize()
    lc.batch_end()
    overlay = overlay_of_lifecycle(lc)
    assert overlay.rejections == (Rejection("session.ready", "BATCH_END", (2,)),)


def test_a_live_run_says_how_many_events_it_rejected():
    lc = Lifecycle("training")
    with pytest.raises(IllegalEventError):
        lc.batch_end()
    assert overlay_of_lifecycle(lc).verdict == "0 events, 1 rejected, created"


@pytest.fixture
def watched():
    lc = Lifecycle("training")
    watch = Watch()
    lc.attach(watch)
    return lc, watch


def counts(overlay):
    return {move: tally.count for move, tally in overlay.tallies.items()}


def test_a_watch_counts_every_transition(watched):
    lc, watch = watched
    with lc.session():
        for _ in range(3):
            with lc.batch():
                lc.loss_calculated(loss=1)
    overlay = watch.overlay(lc)
    assert counts(overlay) == {
        ("created", "INITIALIZE"): 1,
        ("session.ready", "BATCH_START"): 3,
        ("session.batch.started", "LOSS_CALCULATED"): 3,
        ("session.batch.loss", "BATCH_END"): 3,
        ("session.ready", "FINALIZE"): 1,
    }
    assert overlay.visited == {
        "created", "session.ready", "session.batch.started", "session.batch.loss", "finalized",
    }  # fmt: skip


def test_a_watch_measures_how_long_the_observers_took(watched):
    lc, watch = watched
    lc.initialize()
    assert watch.overlay(lc).tallies["created", "INITIALIZE"].seconds > 0


def test_a_watch_keeps_what_a_handler_raised(watched):
    lc, watch = watched

    def fail(event, payload):
        raise ValueError("no")

    lc.on("initialize", fail)
    with pytest.raises(ValueError, match="no"):
        lc.initialize()
    assert watch.overlay(lc).failures == {("created", "INITIALIZE"): "ValueError: no"}


def test_a_watch_keeps_the_positions_of_what_was_rejected(watched):
    lc, watch = watched
    lc.initialize()
    for _ in range(2):
        with pytest.raises(IllegalEventError):
            lc.batch_end()
    assert watch.overlay(lc).rejections == (Rejection("session.ready", "BATCH_END", (2, 3)),)


def test_a_watch_leaves_out_what_is_no_event_at_all(watched):
    lc, watch = watched
    with pytest.raises(ValueError, match="not an event"):
        lc.fire("nonsense")
    assert watch.overlay(lc).rejections == ()


def test_a_watch_begins_again_with_a_new_run(watched):
    lc, watch = watched
    lc.initialize()
    lc.reset()
    assert (counts(watch.overlay(lc)), watch.overlay(lc).visited) == ({}, frozenset())


@pytest.fixture
def saved():
    """A training run that was saved in its first batch, after its loss."""
    lc = Lifecycle("training")
    lc.initialize()
    lc.batch_start()
    lc.loss_calculated(loss=1)
    return lc.state_dict()


def test_a_watch_goes_on_from_where_a_saved_run_stood(watched, saved):
    lc, watch = watched
    lc.load_state_dict(saved)
    lc.batch_end()
    overlay = watch.overlay(lc)
    assert counts(overlay) == {("session.batch.loss", "BATCH_END"): 1}
    assert overlay.visited == {"session.batch.loss", "session.ready"}


def test_a_watch_keeps_what_it_counted_before_a_run_went_back_to_where_it_was_saved(watched, saved):
    lc, watch = watched
    lc.initialize()
    lc.load_state_dict(saved)
    assert counts(watch.overlay(lc)) == {("created", "INITIALIZE"): 1}


def test_a_watch_begins_again_when_a_saved_run_follows_a_complete_one(watched, saved):
    lc, watch = watched
    with lc.session():
        pass
    lc.load_state_dict(saved)
    assert (counts(watch.overlay(lc)), watch.overlay(lc).visited) == ({}, {"session.batch.loss"})


def test_the_journal_of_a_run_that_was_resumed_is_drawn_from_where_it_was_saved(saved):
    lc = Lifecycle("training")
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        lc.attach(journal)
        lc.load_state_dict(saved)
        lc.batch_end()
        lc.finalize()
    overlay = overlay_of_trace(io.BytesIO(file.getvalue()), protocols.TRAINING)
    assert {move: count for move, count in counts(overlay).items() if count} == {
        ("session.batch.loss", "BATCH_END"): 1,
        ("session.ready", "FINALIZE"): 1,
    }
    assert overlay.visited == {"session.batch.loss", "session.ready", "finalized"}
    assert (overlay.verdict, overlay.current) == ("2 events, complete in finalized", "finalized")


def test_a_watch_goes_on_when_a_run_is_aborted(watched):
    lc, watch = watched
    lc.initialize()
    lc.abort("enough")
    assert counts(watch.overlay(lc)) == {("created", "INITIALIZE"): 1}


def test_a_watch_that_is_attached_during_a_run_finds_its_place():
    lc = Lifecycle("training")
    lc.initialize()
    lc.batch_start()
    watch = Watch()
    lc.attach(watch)
    lc.loss_calculated(loss=1)
    assert counts(watch.overlay(lc)) == {("session.batch.started", "LOSS_CALCULATED"): 1}


def test_a_watch_counts_an_event_whose_forerunners_are_missing_where_it_belongs():
    lc = Lifecycle("training", on_violation="record")
    watch = Watch()
    lc.attach(watch)
    lc.initialize()
    lc.loss_calculated(loss=1)
    assert counts(watch.overlay(lc)) == {
        ("created", "INITIALIZE"): 1,
        ("session.batch.started", "LOSS_CALCULATED"): 1,
    }


def test_a_watch_does_not_count_an_event_that_was_taken_to_be_superfluous():
    lc = Lifecycle("training", on_violation="record")
    watch = Watch()
    lc.attach(watch)
    lc.initialize()
    lc.initialize()
    assert counts(watch.overlay(lc)) == {("created", "INITIALIZE"): 1}
