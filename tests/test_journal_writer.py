"""The journal: what is written of everything that happens, and that it reads back as what happened."""

from __future__ import annotations

import gc
import io
import warnings
from dataclasses import asdict

import msgspec
import pytest
import sequences
from hypothesis import given
from hypothesis import strategies as st
from runs import fire, unhurried

from lifecycle import EventType, Lifecycle, LifecycleError, trace
from lifecycle.journal import writer as module
from lifecycle.journal.records import JOURNAL_VERSION


class Clock:
    """Time that stands still between the seconds that a test lets pass."""

    def __init__(self):
        self.now = 10**9

    def __call__(self):
        return self.now


class File(io.BytesIO):
    """A file that knows its journal."""

    journal = None


class Counting(File):
    """A file that counts how often it is flushed."""

    flushes = 0

    def flush(self):
        self.flushes += 1


class Full(File):
    """A file on a disk that is full after some writes."""

    def __init__(self, room):
        super().__init__()
        self.room = room

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        self.room -= 1
        return super().write(data)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "monotonic_ns", clock)
    monkeypatch.setattr(module, "time", lambda: 1_700_000_000.5)
    return clock


def journaled(lifecycle, file=None):
    file = File() if file is None else file
    file.journal = trace.Journal(file)
    lifecycle.attach(file.journal)
    return file


def written(file):
    file.journal._flush()
    return [msgspec.json.decode(line) for line in file.getvalue().splitlines()]


def records(file):
    file.journal._flush()
    return list(trace.read(io.BytesIO(file.getvalue())))


def test_the_first_line_has_the_version_and_the_configuration(clock):
    lc = Lifecycle("training", steps_per_epoch=10, batches_per_step=2, invocations_per_step=3, expect={"steps": 0})
    file = journaled(lc)
    lc.initialize()
    assert written(file)[0] == {
        "header": {
            "version": JOURNAL_VERSION,
            "protocol": "training+repeat_steps",
            "steps_per_epoch": 10,
            "batches_per_step": 2,
            "invocations_per_step": 3,
            "expect": {"steps": 0},
            "time": 1_700_000_000.5,
            "clock": 10**9,
        },
    }


def test_the_line_of_the_configuration_begins_with_its_key(clock):
    lc = Lifecycle()
    file = journaled(lc)
    lc.initialize()
    assert file.getvalue().startswith(b'{"header":')


def test_an_event_is_written_with_its_place_its_counters_and_its_times(clock):
    lc = Lifecycle()
    file = journaled(lc)
    lc.on(EventType, lambda event, payload: None)
    with lc.session(), lc.calibration_epoch():
        for _ in range(2):
            with lc.batch(batch=object()):
                pass
        lc.sequential_epoch_end()
        record = records(file)[-1]
    assert record.duration > 0
    assert written(file)[7] == {
        "event": "sequential_epoch_end",
        "state": "session.calibration.open",
        "position": 7,
        "global_step": 2,
        "global_batch": 2,
        "sequential_epochs": 1,
        "time": 1_700_000_000.5,
        "clock": 10**9,
        "duration": record.duration,
    }


@pytest.mark.parametrize(
    ("payload", "label"),
    [
        ({}, ()),
        ({"modules": ["layers.0", "layers.1"]}, ("layers.0", "layers.1")),
        ({"modules": {"layers.0": object()}}, ("layers.0",)),
        ({"modules": {"layers.0": 1}.keys()}, ("layers.0",)),
        ({"modules": [object(), 3]}, ("object", "3")),
        ({"layer": 7}, ("7",)),
        ({"label": "layers.0", "modules": ["no"]}, ("layers.0",)),
        ({"label": None, "module": "layers.0"}, ("layers.0",)),
        ({"subgraph": iter("abc")}, ("str_ascii_iterator", "str_iterator")),
        ({"modules": [str(number) for number in range(66)]}, (*map(str, range(64)), "and 2 more")),
        ({"layer": "x" * 5000}, ("x" * module.TEXT_WRITTEN,)),
        ({"layer": "\ud800"}, ("?",)),
    ],
)
def test_a_sequential_epoch_is_labelled_with_names_and_never_with_what_is_in_them(payload, label):
    lc = Lifecycle()
    file = journaled(lc)
    _ = lc.initialize(), lc.calibration_epoch_start(), lc.sequential_epoch_end(**payload)
    found = records(file)[-1].label
    assert found == label or (len(found) == 1 and found[0] in label)


def test_other_events_have_no_label():
    lc = Lifecycle()
    file = journaled(lc)
    _ = lc.initialize(), lc.batch_start(modules=["layers.0"])
    assert records(file)[-1].label == ()


def test_a_skipped_step_is_marked():
    lc = Lifecycle("training")
    file = journaled(lc)
    _ = lc.initialize(), lc.batch_start(skipped=True), lc.loss_calculated(loss=1), lc.optim_pre_step()
    lc.optim_post_step(skipped=True)
    assert [record.skipped for record in records(file)[1:]] == [False, False, False, False, True]


def test_what_an_observer_raised_is_written():
    lc = Lifecycle("training")
    file = journaled(lc)
    lc.on("initialize", lambda event, payload: {}["model"])
    with pytest.raises(KeyError):
        lc.initialize()
    assert records(file)[-1].error == "KeyError: 'model'"


def test_a_rejected_event_is_written_with_why():
    lc = Lifecycle("training")
    file = journaled(lc)
    with pytest.raises(LifecycleError) as caught:
        lc.finalize()
    record = records(file)[-1]
    assert (record.rejected, record.reason, record.let_through) == ("finalize", "IllegalEventError", False)
    assert record.error == str(caught.value)


def test_an_event_that_is_no_event_is_written_as_it_was_given():
    lc = Lifecycle("training")
    file = journaled(lc)
    with pytest.raises(LifecycleError):
        lc.fire("batch_begin")
    with pytest.raises(TypeError):
        lc.fire(3)
    assert [record.rejected for record in records(file)[1:]] == ["batch_begin", "3"]


def test_an_event_that_is_let_through_is_written_twice_and_marked():
    lc = Lifecycle("training", on_violation="record")
    file = journaled(lc)
    lc.initialize()
    lc.batch_end()
    assert [(record.event, record.rejected, record.let_through) for record in records(file)[2:]] == [
        ("", "batch_end", True),
        ("batch_end", None, False),
    ]


def test_resets_aborts_and_suspensions_are_written_with_why():
    lc = Lifecycle("training")
    file = journaled(lc)
    lc.initialize()
    with lc.suspended("evaluation"):
        pass
    lc.abort(RuntimeError("out of memory"))
    lc.reset()
    lc.initialize()
    lc.abort("no time left")
    found = [(record.control, record.detail, record.error) for record in records(file) if record.control]
    assert found == [
        ("suspend", "evaluation", None),
        ("resume", "evaluation", None),
        ("abort", None, "RuntimeError: out of memory"),
        ("reset", "aborted", None),
        ("abort", "no time left", None),
    ]


def test_a_loaded_run_is_written_with_its_state_and_all_that_it_had_done(clock):
    saved = fire(Lifecycle("training"), "IBLPOEB").state_dict()
    lc = Lifecycle("training")
    file = journaled(lc)
    lc.load_state_dict(saved)
    _, loaded = written(file)
    assert loaded.pop("progress") == asdict(lc.progress)
    assert loaded == {
        "state": "session.batch.started",
        "position": 7,
        "global_step": 1,
        "global_batch": 1,
        "time": 1_700_000_000.5,
        "clock": 10**9,
        "control": "load",
        "detail": "session.batch.started",
    }


def test_an_abort_without_a_reason_says_none():
    lc = Lifecycle("training")
    file = journaled(lc)
    lc.initialize()
    lc.abort()
    assert (records(file)[-1].detail, records(file)[-1].error) == (None, None)


def test_a_record_is_written_through_when_a_second_has_passed(clock):
    lc = Lifecycle("training")
    file = journaled(lc, Counting())
    lc.initialize()
    before = file.flushes
    lc.batch_start()
    assert file.flushes == before
    clock.now += module.FLUSH_INTERVAL + 1
    lc.loss_calculated(loss=1)
    assert file.flushes == before + 1
    lc.batch_end()
    assert file.flushes == before + 1


def test_what_goes_wrong_is_written_through_at_once(clock):
    lc = Lifecycle("training")
    file = journaled(lc, Counting())
    lc.initialize()
    lc.on("batch_start", lambda event, payload: 1 / 0)
    before = file.flushes
    with pytest.raises(ZeroDivisionError):
        lc.batch_start()
    assert file.flushes == before + 1
    with pytest.raises(LifecycleError):
        lc.initialize()
    assert file.flushes == before + 2
    lc.reset()
    assert file.flushes == before + 3


def test_records_are_written_through_when_they_are_many(clock):
    lc = Lifecycle("training")
    file = journaled(lc, Counting())
    lc.initialize()
    before = file.flushes
    for _ in range(200):
        with lc.batch():
            lc.loss_calculated(loss=1)
    assert file.flushes == before + 1
    assert module.FLUSH_SIZE < len(file.getvalue()) < 2 * module.FLUSH_SIZE


def test_the_end_of_a_run_is_written_through_at_once(clock):
    lc = Lifecycle("training")
    file = journaled(lc, Counting())
    with lc.session():
        before = file.flushes
    assert file.flushes == before + 1
    assert b'"finalize"' in file.getvalue()


def test_what_is_left_of_a_journal_that_nobody_closes_is_written(clock):
    file = io.BytesIO()
    lc = Lifecycle("training")
    handle = lc.attach(trace.Journal(file))
    _ = lc.initialize(), lc.batch_start()
    assert b"batch_start" not in file.getvalue()
    handle.remove()
    gc.collect()
    assert b"batch_start" in file.getvalue()


def test_what_is_left_is_not_written_twice(clock):
    file = io.BytesIO()
    lc = Lifecycle("training")
    journal = trace.Journal(file)
    handle = lc.attach(journal)
    _ = lc.initialize(), lc.batch_start()
    journal.close()
    written = file.getvalue()
    handle.remove()
    del journal
    gc.collect()
    assert file.getvalue() == written


def test_what_is_left_cannot_be_written_to_a_file_that_was_closed():
    file = io.BytesIO()
    lc = Lifecycle("training")
    handle = lc.attach(trace.Journal(file))
    _ = lc.initialize(), lc.batch_start()
    file.close()
    handle.remove()
    gc.collect()
    assert lc.state == "session.batch.started"


def test_a_journal_that_was_closed_writes_no_more(tmp_path):
    path = tmp_path / "run.jsonl"
    lc = Lifecycle("training")
    with trace.Journal(path) as journal:
        lc.attach(journal)
        lc.initialize()
    lc.batch_start()
    lc.reset()
    journal.close()
    assert [record.event for record in trace.read(path)] == ["", "initialize"]


def test_a_file_of_the_caller_stays_open():
    file = io.BytesIO()
    trace.Journal(file).close()
    assert not file.closed


def test_a_journal_that_is_there_already_is_continued(tmp_path):
    path = tmp_path / "run.jsonl"
    for _ in range(2):
        lc = Lifecycle("training")
        with trace.Journal(path) as journal:
            lc.attach(journal)
            with lc.session():
                pass
    assert [run.verdict for run in trace.check(path).runs] == ["conforms", "conforms"]


def test_a_journal_whose_last_line_was_cut_off_is_continued_on_a_new_line(tmp_path):
    path = tmp_path / "run.jsonl"
    lc = Lifecycle("training")
    with trace.Journal(path) as journal:
        lc.attach(journal)
        with lc.session():
            pass
    path.write_bytes(path.read_bytes()[:-20])
    lc = Lifecycle("training")
    with trace.Journal(path) as journal:
        lc.attach(journal)
        with lc.session():
            pass
    report = trace.check(path)
    assert [run.verdict for run in report.runs] == ["abandoned", "conforms"]
    assert report.notes == {"(cut off)": 1}


def test_a_run_that_was_killed_in_a_line_and_goes_on_obeys_strict_names_too(tmp_path):
    path = tmp_path / "run.jsonl"
    lc = Lifecycle("training")
    with trace.Journal(path) as journal:
        lc.attach(journal)
        _ = lc.initialize(), lc.batch_start()
        saved = lc.state_dict()
        lc.loss_calculated(loss=1.0)
    path.write_bytes(path.read_bytes()[:-20])
    resumed = Lifecycle("training")
    with trace.Journal(path) as journal:
        resumed.attach(journal)
        resumed.load_state_dict(saved)
        _ = resumed.loss_calculated(loss=1.0), resumed.batch_end(), resumed.finalize()
    (run,) = trace.check(path, strict_names=True).runs
    assert (run.verdict, run.resumed.undone) == ("conforms", 0)


def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    with pytest.raises(LifecycleError, match="is there already and is not a journal; nothing was written"):
        trace.Journal(path)
    assert path.read_bytes() == b"weights"


def test_an_empty_file_may_become_a_journal(tmp_path):
    path = tmp_path / "run.jsonl"
    path.touch()
    trace.Journal(path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("target", [3, None, io.StringIO()])
def test_a_target_that_is_neither_a_path_nor_a_binary_file_is_a_type_error(target):
    with pytest.raises(TypeError, match="a journal needs a path or a binary file"):
        trace.Journal(target)


def test_a_second_lifecycle_needs_a_journal_of_its_own():
    journal = trace.Journal(io.BytesIO())
    first, second = Lifecycle("training"), Lifecycle("training")
    _ = first.attach(journal), second.attach(journal)
    first.initialize()
    with pytest.raises(LifecycleError, match="a journal is of one lifecycle"):
        second.initialize()


@pytest.mark.parametrize("room", [0, 1])
def test_a_journal_that_cannot_be_written_warns_once_and_lets_the_run_go_on(room):
    lc = Lifecycle("training")
    journaled(lc, Full(room))
    with pytest.warns(RuntimeWarning, match="the journal has ended, since it cannot be written: .*No space") as warned:
        _ = lc.initialize(), lc.batch_start(), lc.loss_calculated(loss=1), lc.reset()
    assert len(warned) == 1
    assert lc.state == "created"


def test_a_path_that_cannot_be_written_any_more_is_closed(tmp_path, monkeypatch):
    file = Full(0)
    monkeypatch.setattr(module, "_open", lambda path: file)
    lc = Lifecycle("training")
    lc.attach(trace.Journal(tmp_path / "run.jsonl"))
    with pytest.warns(RuntimeWarning, match="No space"):
        lc.initialize()
    assert file.closed


def test_a_rejection_that_cannot_be_written_warns_too():
    lc = Lifecycle("training")
    journaled(lc, Full(1))
    with pytest.warns(RuntimeWarning, match="No space"), pytest.raises(LifecycleError):
        lc.finalize()


class Broken(io.BytesIO):
    """A file that takes what it is given, and cannot pass it on."""

    def flush(self):
        raise OSError(28, "No space left on device")


def test_closing_a_journal_whose_rest_cannot_be_written_warns():
    with pytest.warns(RuntimeWarning, match="No space"):
        trace.Journal(Broken()).close()


def test_a_journal_that_cannot_be_written_through_warns_once():
    lc = Lifecycle("training")
    journal = trace.Journal(Broken())
    lc.attach(journal)
    with pytest.warns(RuntimeWarning, match="No space") as warned:
        _ = lc.initialize(), lc.reset(), lc.reset(), journal.close()
    assert len(warned) == 1


def test_a_journal_does_not_change_what_the_lifecycle_does():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, watched = Lifecycle(), Lifecycle()
        journaled(watched)
        for lc in plain, watched:
            with lc.session(), lc.calibration_epoch(), lc.batch():
                pass
    assert plain.state_dict() == watched.state_dict()


COUNTERS = ("global_step", "global_batch")
PROGRESS = ("calibration_epochs", "sequential_epochs", "total_sequential_epochs", "batches")


def drive(lifecycle, draws):
    for draw in draws:
        if lifecycle.status == "finalized":
            lifecycle.reset()
        event, payload = draw.choose(lifecycle)
        sequences.takes(lifecycle, event, payload)


@unhurried
@given(lifecycle=sequences.lifecycles(), draws=sequences.long_runs(60))
def test_a_journal_replays_to_the_same_state_and_counters(lifecycle, draws):
    lifecycle.expect = {}
    file = journaled(lifecycle)
    drive(lifecycle, draws)
    if not lifecycle.progress.accepted:
        return
    file.journal.close()
    run = trace.check(io.BytesIO(file.getvalue())).runs[-1]
    assert run.state == lifecycle.state
    assert run.refused == run.violation_count == lifecycle.progress.rejected
    assert run.events == lifecycle.progress.accepted
    wanted = {name: getattr(lifecycle.event, name) for name in COUNTERS}
    wanted |= {name: asdict(lifecycle.progress)[name] for name in PROGRESS}
    assert run.counters == wanted


@unhurried
@given(data=st.data(), draws=sequences.long_runs(40))
def test_the_records_of_a_journal_are_the_events_as_they_were_fired(data, draws):
    lifecycle = Lifecycle(data.draw(st.sampled_from(["compression", "training", "upstream"])))
    seen = []
    lifecycle.on(
        EventType, lambda event, payload: seen.append((event.type_.value, lifecycle.state, event.global_batch))
    )
    file = journaled(lifecycle)
    drive(lifecycle, draws)
    found = (
        [(record.event, record.state, record.global_batch) for record in records(file) if record.event] if seen else []
    )
    assert found == seen
