"""A modifier that raises, in each of its hooks, and a ``with`` block that is left in each of the ways there are."""

from __future__ import annotations

import asyncio
import builtins
import io
import sys

import pytest
from recording import HOOKS, Recorder, fire

from lifecycle import IllegalEventError, Lifecycle, LifecycleError, LifecycleWarning, ReentrantEventError, trace
from lifecycle.errors import grouped
from lifecycle.session import CompressionSession, Modifier

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

WORD = "ICBLPOESKF"
EVENT_OF_HOOK = {
    "on_event": "C",
    "on_start": "B",
    "on_update": "B",
    "on_end": "E",
    "on_calibration_epoch_start": "C",
    "on_sequential_epoch_end": "S",
    "on_calibration_epoch_end": "K",
}


def three(fails=None, protocol="compression", **options):
    """A session of three modifiers, of which the second fails, and the one list of their calls."""
    calls = []
    modifiers = [Recorder(name, calls, fails if name == "b" else None, end=1) for name in "abc"]
    return CompressionSession(modifiers, protocol, **options), calls


def calls_of_a_whole_run():
    session, calls = three()
    fire(session, WORD)
    return calls


def counters(lifecycle):
    event, progress = lifecycle.event, lifecycle.progress
    return event.type_, event.global_step, event.global_batch, progress, lifecycle.state, lifecycle.history


def raised_at(session, hook):
    """Fire up to the event at which a hook raises, and return what it raised."""
    error = RuntimeError("it broke")
    session.modifiers[1].fails = {hook: error}
    with pytest.raises(RuntimeError) as caught:
        fire(session, WORD)
    assert caught.value is error
    return error


# A hook between INITIALIZE and FINALIZE


@pytest.mark.parametrize("hook", EVENT_OF_HOOK)
def test_after_a_hook_that_raises_no_hook_is_called_for_the_event(hook):
    session, calls = three()
    raised_at(session, hook)
    whole = calls_of_a_whole_run()
    assert calls == whole[: whole.index(f"b.{hook}") + 1]


@pytest.mark.parametrize("hook", EVENT_OF_HOOK)
def test_the_event_that_a_hook_raised_at_stands(hook):
    session, _ = three()
    raised_at(session, hook)
    plain = Lifecycle()
    for event in session.lifecycle.history:
        plain.fire(event, loss=0.5)
    assert session.lifecycle.status == "open"
    assert counters(session.lifecycle) == counters(plain)
    assert len(plain.history) == WORD.index(EVENT_OF_HOOK[hook]) + 1


@pytest.mark.parametrize("hook", EVENT_OF_HOOK)
def test_a_run_can_go_on_after_a_hook_that_raised(hook):
    session, calls = three()
    raised_at(session, hook)
    session.modifiers[1].fails = {}
    del calls[:]
    fire(session, WORD[len(session.lifecycle.history) :])
    assert session.lifecycle.status == "finalized"
    assert calls[-3:] == ["a.on_finalize", "b.on_finalize", "c.on_finalize"]


@pytest.mark.parametrize("hook", ["on_start", "on_update", "on_end"])
def test_a_hook_that_raised_is_called_again_when_it_is_due(hook):
    modifier = Recorder(fails={hook: RuntimeError()}, end=0 if hook == "on_end" else None)
    session = CompressionSession([modifier], "training")
    with pytest.raises(RuntimeError):
        fire(session, "IBLE")
    modifier.fails = {}
    # The step is still the same.
    fire(session, {"B": "LEBLEBLE", "E": "BLEBLE"}[EVENT_OF_HOOK[hook]])
    assert modifier.calls.count(f"m.{hook}") == 2


@pytest.mark.parametrize("hook", EVENT_OF_HOOK)
def test_the_journal_has_the_event_with_the_error(hook):
    session, _ = three()
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        session.lifecycle.attach(journal)
        raised_at(session, hook)
    file.seek(0)
    records = list(trace.read(file))[1:]
    assert [record.event for record in records] == [event.value for event in session.lifecycle.history]
    assert [record.error for record in records] == [None] * (len(records) - 1) + ["RuntimeError: it broke"]


@pytest.mark.parametrize("hook", [*EVENT_OF_HOOK, "on_initialize"])
def test_after_a_hook_that_raised_the_session_can_be_reset_and_used_again(hook):
    session, calls = three()
    raised_at(session, hook)
    session.modifiers[1].fails = {}
    assert session.reset() == ("aborted" if hook == "on_initialize" else "abandoned")
    assert calls[-3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert calls.count("b.on_abort") == 1
    del calls[:]
    fire(session, WORD)
    assert calls == calls_of_a_whole_run()
    assert session.lifecycle.status == "finalized"


@pytest.mark.parametrize("hook", EVENT_OF_HOOK)
def test_in_a_with_block_a_hook_that_raises_aborts_the_run(hook):
    session, calls = three()
    error = RuntimeError("it broke")
    session.modifiers[1].fails = {hook: error}
    with pytest.raises(RuntimeError) as caught, session:
        fire(session, WORD)
    assert caught.value is error
    assert calls[-3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert session.modifiers[0].details[-1][-1] is error
    assert (session.lifecycle.status, "a.on_finalize" in calls) == ("aborted", False)


@pytest.mark.parametrize(("word", "hook"), [("I", "on_initialize"), ("ICB", "on_update")])
def test_after_a_hook_that_aborts_the_others_are_told_of_that_only(word, hook):
    session, calls = three()
    aborting = session.modifiers[0]
    setattr(aborting, hook, lambda state, event, **payload: aborting.called(hook) or session.abort("diverged"))
    fire(session, word)
    assert calls[calls.index(f"a.{hook}") + 1 :] == ["a.on_abort", "b.on_abort", "c.on_abort"]


def test_an_interrupt_in_a_hook_passes_as_it_is():
    session, calls = three({"on_event": KeyboardInterrupt()})
    fire(session, "I")
    with pytest.raises(KeyboardInterrupt):
        session.calibration_epoch_start()
    assert calls[-1] == "b.on_event"
    assert session.lifecycle.status == "open"


def test_the_journal_of_a_run_that_failed_and_of_the_next_one_has_no_violation():
    session, _ = three()
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        session.lifecycle.attach(journal)
        raised_at(session, "on_end")
        session.modifiers[1].fails = {}
        session.reset()
        fire(session, WORD)
    file.seek(0)
    report = trace.check(file)
    assert (report.run_count, report.violation_count) == (2, 0)


# INITIALIZE


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt()])
def test_a_failure_at_initialize_aborts_the_run(error):
    session, calls = three({"on_initialize": error})
    with pytest.raises(type(error)) as caught:
        session.initialize(model="a model")
    assert caught.value is error
    assert calls == ["a.on_initialize", "b.on_initialize", "a.on_abort", "b.on_abort", "c.on_abort"]
    assert [modifier.details[-1][-1] for modifier in session.modifiers] == [error] * 3
    assert session.lifecycle.status == "aborted"
    assert [event.name for event in session.lifecycle.history] == ["INITIALIZE"]


def test_the_journal_has_a_failed_initialize_and_then_the_abort():
    session, _ = three({"on_initialize": RuntimeError("it broke")})
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        session.lifecycle.attach(journal)
        with pytest.raises(RuntimeError):
            session.initialize()
    file.seek(0)
    assert [(record.event, record.control, record.error) for record in trace.read(file)][1:] == [
        ("initialize", None, "RuntimeError: it broke"),
        ("", "abort", "RuntimeError: it broke"),
    ]


def test_a_failure_at_initialize_in_a_with_block_aborts_once():
    session, calls = three({"on_initialize": RuntimeError()})
    with pytest.raises(RuntimeError), session:
        session.initialize()
    assert calls[2:] == ["a.on_abort", "b.on_abort", "c.on_abort"]


def test_an_observer_that_raises_at_initialize_leaves_the_run_open():
    session, calls = three()

    def observer(event, payload):
        raise ZeroDivisionError

    session.lifecycle.on("initialize", observer)
    with pytest.raises(ZeroDivisionError):
        session.initialize()
    assert calls == ["a.on_initialize", "b.on_initialize", "c.on_initialize"]
    assert session.lifecycle.status == "open"


def test_a_hook_of_initialize_may_catch_that_it_was_refused():
    class Curious(Modifier):
        def on_initialize(self, state, event, **payload):
            with pytest.raises(ReentrantEventError):
                session.batch_start()
            with pytest.raises(LifecycleError, match="is not an event"):
                session.event("batch_begin")

    session = CompressionSession([Curious(), last := Recorder()], "training")
    session.initialize()
    assert (session.lifecycle.status, last.calls) == ("open", ["m.on_initialize"])


def test_an_illegal_event_at_once_after_initialize_does_not_abort():
    session, _ = three(protocol="training")
    session.initialize()
    with pytest.raises(IllegalEventError):
        session.batch_end()
    assert session.lifecycle.status == "open"


# FINALIZE


def test_finalize_attempts_every_modifier_and_raises_all_failures_in_order():
    calls = []
    errors = {"a": RuntimeError("a"), "c": OSError("c")}
    modifiers = [Recorder(name, calls, {"on_finalize": errors[name]} if name in errors else None) for name in "abc"]
    session = CompressionSession(modifiers, "training")
    fire(session, "I")
    with pytest.raises(ExceptionGroup) as caught:
        session.finalize()
    assert calls[3:] == ["a.on_finalize", "b.on_finalize", "c.on_finalize"]
    assert caught.value.message == "2 of 3 modifiers failed to finalize: Recorder, Recorder"
    assert caught.value.exceptions == (errors["a"], errors["c"])
    assert (session.lifecycle.status, session.lifecycle.history[-1].name) == ("finalized", "FINALIZE")


def test_one_failure_at_finalize_is_a_group_too():
    error = RuntimeError("it broke")
    session, _ = three({"on_finalize": error}, "training")
    fire(session, "I")
    with pytest.raises(ExceptionGroup) as caught:
        session.finalize()
    assert caught.value.exceptions == (error,)


def test_after_a_failed_finalize_the_session_can_be_reset_and_used_again():
    session, calls = three({"on_finalize": RuntimeError()})
    with pytest.raises(ExceptionGroup):
        fire(session, WORD)
    session.modifiers[1].fails = {}
    assert session.reset() == "finalized"
    assert "a.on_abort" not in calls
    del calls[:]
    fire(session, WORD)
    assert calls == calls_of_a_whole_run()


def test_a_failed_finalize_at_the_end_of_a_with_block_passes_and_aborts_nobody():
    session, calls = three({"on_finalize": RuntimeError()}, "training")
    with pytest.raises(ExceptionGroup), session:
        fire(session, "I")
    assert calls[3:] == ["a.on_finalize", "b.on_finalize", "c.on_finalize"]
    assert session.lifecycle.status == "finalized"


def test_an_interrupt_at_finalize_passes_at_once():
    session, calls = three({"on_finalize": KeyboardInterrupt()}, "training")
    fire(session, "I")
    with pytest.raises(KeyboardInterrupt):
        session.finalize()
    assert calls[3:] == ["a.on_finalize", "b.on_finalize"]
    assert session.lifecycle.status == "finalized"


def test_groups_are_those_of_the_backport_where_python_has_none(monkeypatch):
    class Backport:
        ExceptionGroup = staticmethod(lambda message, errors: (message, errors))

    monkeypatch.delattr(builtins, "ExceptionGroup", raising=False)
    monkeypatch.setattr("lifecycle.errors.import_module", {"exceptiongroup": Backport}.get)
    assert grouped("several", []) == ("several", [])


# on_abort


def test_on_abort_that_raises_is_warned_of_and_the_others_are_called():
    session, calls = three({"on_abort": OSError("no disk")}, "training")
    fire(session, "I")
    with pytest.warns(LifecycleWarning) as caught:
        session.abort("why")
    assert [str(warning.message) for warning in caught] == ["Recorder.on_abort raised OSError('no disk')"]
    assert calls[3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert session.lifecycle.status == "aborted"


def test_all_that_raise_in_on_abort_are_in_one_warning():
    modifiers = [Recorder(fails={"on_abort": KeyError(number)}) for number in range(2)]
    session = CompressionSession(modifiers, "training")
    fire(session, "I")
    with pytest.warns(LifecycleWarning) as caught:
        session.reset()
    assert [str(warning.message) for warning in caught] == [
        "Recorder.on_abort raised KeyError(0); Recorder.on_abort raised KeyError(1)"
    ]


def test_on_abort_that_raises_does_not_hide_the_error():
    session, calls = three({"on_abort": OSError("no disk")}, "training")
    error = ValueError("the cause")
    fire(session, "I")
    with pytest.raises(ValueError, match="the cause") as caught, pytest.warns(LifecycleWarning), session:
        raise error
    assert caught.value is error
    assert calls[3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]


def test_on_abort_that_raises_does_not_hide_the_error_of_initialize():
    session, _ = three({"on_initialize": ValueError("the cause"), "on_abort": OSError("no disk")})
    with pytest.raises(ValueError, match="the cause"), pytest.warns(LifecycleWarning):
        session.initialize()


def test_after_on_abort_that_raised_the_session_can_be_reset_and_used_again():
    session, calls = three({"on_abort": OSError("no disk")})
    fire(session, "IC")
    with pytest.warns(LifecycleWarning):
        assert session.reset() == "abandoned"
    del calls[:]
    fire(session, WORD)
    assert calls == calls_of_a_whole_run()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no disk")])
def test_a_reset_is_whole_although_on_abort_interrupts_it(error):
    session, calls = three({"on_abort": error})
    session.initialize(model="a model")
    fire(session, "CB")
    # An interrupt, or a warning that is an error, as in these tests, leaves reset() in the middle.
    with pytest.raises((KeyboardInterrupt, LifecycleWarning)):
        session.reset()
    assert (session.lifecycle.status, session.state.model) == ("created", None)
    session.modifiers[1].fails = {}
    del calls[:]
    fire(session, WORD)
    assert calls == calls_of_a_whole_run()


def test_on_abort_may_not_reset():
    class Resets(Modifier):
        def on_abort(self, state, event, error):
            session.reset()

    session = CompressionSession([Resets()], "training")
    fire(session, "I")
    with pytest.warns(LifecycleWarning, match=r"^Resets\.on_abort raised ReentrantEventError\("):
        session.abort()
    assert session.lifecycle.status == "aborted"


# state_dict


def test_state_dict_that_raises_changes_nothing():
    session, calls = three({"state_dict": RuntimeError("it broke")}, "training")
    fire(session, "IB")
    before, told = session.lifecycle.state_dict(), list(calls)
    with pytest.raises(RuntimeError, match="it broke"):
        session.state_dict()
    assert (session.lifecycle.state_dict(), calls) == (before, told)
    fire(session, "LEF")
    assert session.reset() == "finalized"


def test_state_dict_that_returns_nothing_is_a_type_error_when_it_is_saved():
    class Forgets(Modifier):
        def state_dict(self):
            pass

    session = CompressionSession([Forgets()])
    with pytest.raises(TypeError, match=r"^what state_dict\(\) returned of Forgets must be a mapping, got None$"):
        session.state_dict()


# Leaving the block


def test_a_block_that_ends_finalizes():
    session, calls = three(protocol="training")
    with session as entered:
        fire(session, "IBLPOE")
        assert entered is session
    assert calls[-3:] == ["a.on_finalize", "b.on_finalize", "c.on_finalize"]
    assert session.lifecycle.status == "finalized"


@pytest.mark.parametrize("error", [ValueError("it broke"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_a_block_that_is_left_by_an_exception_aborts_and_passes_it_on(error):
    session, calls = three(protocol="training")
    fire(session, "IB")
    with pytest.raises(type(error)) as caught, session:
        raise error
    assert caught.value is error
    assert calls.count("a.on_abort") == 1
    assert calls[-3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert session.modifiers[0].details[-1] == ("on_abort", 0, 0, error)
    assert (session.lifecycle.status, session.lifecycle.history[-1].name) == ("aborted", "BATCH_START")


def test_a_block_after_finalize_fires_nothing_more():
    session, calls = three(protocol="training")
    with session:
        fire(session, "IF")
    assert calls.count("a.on_finalize") == 1


def test_an_exception_after_finalize_aborts_nobody():
    session, calls = three(protocol="training")
    fire(session, "IF")
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    assert (calls.count("a.on_abort"), session.lifecycle.status) == (0, "finalized")


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_before_initialize_tells_nobody(fails):
    session, calls = three()
    try:
        with session:
            if fails:
                raise ZeroDivisionError  # noqa: TRY301 # it is what leaves the block
    except ZeroDivisionError:
        pass
    assert (calls, session.lifecycle.status) == ([], "created")


def test_a_block_that_ends_with_an_open_batch_raises_and_leaves_the_run_open():
    session, calls = three(protocol="training")
    with pytest.raises(IllegalEventError, match=r"^FINALIZE is not allowed in session\.batch\.started"), session:
        fire(session, "IB")
    assert session.lifecycle.status == "open"
    assert not {"a.on_abort", "a.on_finalize"} & {*calls}
    assert session.reset() == "abandoned"
    assert calls[-3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]


def test_a_block_that_ends_before_the_expected_counts_raises_and_leaves_the_run_open():
    session, _ = three(protocol="training", expect={"steps": 2})
    with pytest.raises(IllegalEventError, match="steps: expected 2, counted 1"), session:
        fire(session, "IBLPOE")
    assert session.lifecycle.status == "open"
    fire(session, "BLPOEF")
    assert session.lifecycle.status == "finalized"


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_after_abort_tells_nobody_again(fails):
    session, calls = three(protocol="training")
    try:
        with session:
            fire(session, "I")
            session.abort("why")
            if fails:
                raise ZeroDivisionError  # noqa: TRY301 # it is what leaves the block
    except ZeroDivisionError:
        pass
    assert calls[3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert session.lifecycle.status == "aborted"


def test_a_block_can_be_entered_again_for_a_new_run():
    session, calls = three(protocol="training")
    for _ in range(2):
        with session:
            fire(session, "I")
        session.reset()
    assert calls.count("a.on_finalize") == 2


def test_a_block_in_a_generator_that_is_closed_is_aborted():
    session, calls = three(protocol="training")

    def training():
        with session:
            fire(session, "IB")
            yield

    steps = training()
    next(steps)
    steps.close()
    assert calls[-3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert isinstance(session.modifiers[0].details[-1][-1], GeneratorExit)


def test_a_block_in_a_task_that_is_cancelled_is_aborted():
    session, calls = three(protocol="training")

    async def training():
        with session:
            fire(session, "IB")
            await asyncio.get_running_loop().create_future()

    async def main():
        task = asyncio.create_task(training())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert calls[-3:] == ["a.on_abort", "b.on_abort", "c.on_abort"]
    assert isinstance(session.modifiers[0].details[-1][-1], asyncio.CancelledError)


def test_every_hook_is_failed_in_here():
    assert {*EVENT_OF_HOOK, "on_initialize", "on_finalize"} == {*HOOKS}
