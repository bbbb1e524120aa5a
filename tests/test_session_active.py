"""Which session is active where: nested, in threads, in tasks and in copied contexts."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
from recording import Recorder

from lifecycle import IllegalEventError, LifecycleError
from lifecycle.session import CompressionSession, active_session, callbacks, create_session

NONE = "no session is active in this thread or task; create_session() begins one, and `with session:` enters one"


@pytest.fixture(autouse=True)
def no_session_before_and_after():
    # Fixtures and tests have one context.
    assert current() is None
    yield
    assert current() is None


def current():
    """The active session, if there is one."""
    try:
        return active_session()
    except LifecycleError:
        return None


def in_a_context(function):
    """Run a test in a context of its own, since it leaves a session active."""

    def run():
        contextvars.copy_context().run(function)

    run.__name__ = function.__name__
    return run


def training(name="m", calls=None):
    return CompressionSession([Recorder(name, calls)], "training")


def run_by_callbacks(name, pause=lambda: None):
    """A training run of two batches by the callbacks, with a pause between any two events."""
    pause()
    callbacks.initialize(model=name)
    for _ in range(2):
        pause()
        callbacks.batch_start(name=name)
        pause()
        callbacks.loss_calculated(loss=name)
        pause()
        callbacks.optim_pre_step(name=name)
        pause()
        callbacks.optim_post_step(name=name)
        pause()
        callbacks.batch_end(name=name)
    pause()
    callbacks.finalize(name=name)


def names_seen(session):
    """Every name that came with an event that the session's modifier was told of."""
    return {value for detail in session.modifiers[0].details for value in detail[-1].values()}


# Nested


def test_a_block_makes_its_session_active():
    session = training()
    with session:
        assert active_session() is session


def test_of_nested_sessions_the_inner_one_is_active():
    outer, inner = training(), training()
    with outer:
        with inner:
            assert active_session() is inner
        assert active_session() is outer


def test_a_session_that_is_entered_again_at_once_is_active_until_its_outer_block_is_left():
    below, session = training(), training()
    with below, session:
        with session:
            assert active_session() is session
        assert active_session() is session


def test_a_session_that_is_entered_again_inside_another_is_active_there():
    first, second = training(), training()
    with first:
        with second:
            with first:
                assert active_session() is first
            assert active_session() is second
        assert active_session() is first


def test_the_first_of_nested_blocks_of_a_session_to_be_left_finalizes():
    session = training()
    with session:
        with session:
            callbacks.initialize()
        with pytest.raises(IllegalEventError):
            callbacks.batch_start()
    assert session.modifiers[0].calls == ["m.on_initialize", "m.on_finalize"]


def test_sessions_may_be_left_in_another_order():
    first, second, third = training(), training(), training()
    for session in (first, second, third):
        session.__enter__()
    second.__exit__(None, None, None)
    assert active_session() is third
    third.__exit__(None, None, None)
    assert active_session() is first
    first.__exit__(None, None, None)


def test_after_an_exception_the_outer_session_is_active_again():
    outer, inner = training(), training()
    with outer:
        with pytest.raises(ZeroDivisionError), inner:
            raise ZeroDivisionError
        assert active_session() is outer


def test_a_block_whose_finalize_is_interrupted_is_left_all_the_same():
    session = CompressionSession([Recorder(fails={"on_finalize": KeyboardInterrupt()})], "training")
    session.initialize()
    with pytest.raises(KeyboardInterrupt), session:
        pass
    assert current() is None


def test_a_block_whose_abort_is_interrupted_is_left_all_the_same():
    session = CompressionSession([Recorder(fails={"on_abort": KeyboardInterrupt()})], "training")
    session.initialize()
    with pytest.raises(KeyboardInterrupt), session:
        raise ZeroDivisionError
    assert current() is None


def test_a_session_that_was_not_entered_is_not_active():
    session = training()
    session.initialize()
    assert current() is None


def test_a_block_that_is_left_in_another_context_leaves_that_as_it_is():
    session, other = training(), training()
    contextvars.copy_context().run(session.__enter__)
    with other:
        session.__exit__(None, None, None)
        assert active_session() is other


# create_session


@in_a_context
def test_a_created_session_is_active_without_a_block():
    session = create_session([Recorder()], "training", steps_per_epoch=2)
    assert active_session() is session
    assert session.lifecycle.event.steps_per_epoch == 2


def test_a_created_session_is_active_until_its_block_is_left():
    with create_session(protocol="training") as session:
        assert active_session() is session


@in_a_context
def test_a_created_session_is_active_until_its_block_is_left_also_when_that_comes_later():
    outer = create_session()
    session = create_session()
    with session:
        with session:
            assert active_session() is session
        assert active_session() is session
    assert active_session() is outer


@in_a_context
def test_a_session_that_is_created_later_is_the_active_one():
    create_session()
    second = create_session()
    assert active_session() is second


@in_a_context
def test_a_session_that_is_activated_twice_is_active_once():
    session = create_session()
    session.activate()
    with session:
        pass
    assert current() is None


@in_a_context
def test_a_session_that_cannot_be_created_leaves_the_active_one():
    session = create_session()
    with pytest.raises(LifecycleError, match="is not a built-in protocol"):
        create_session(protocol="trainign")
    assert active_session() is session


def test_the_protocol_of_a_created_session_is_compression_if_none_is_given():
    with create_session() as session:
        assert session.lifecycle.protocol.name == "compression"


# Callbacks


def test_without_a_session_there_is_nothing_to_call_back():
    with pytest.raises(LifecycleError) as caught:
        callbacks.initialize()
    assert str(caught.value) == NONE


@pytest.mark.parametrize("bracket", [callbacks.batch, callbacks.calibration_epoch])
def test_without_a_session_there_is_no_bracket(bracket):
    with pytest.raises(LifecycleError, match="no session is active"), bracket():
        pass


def test_callbacks_fire_the_events_of_the_active_session():
    calls = []
    with CompressionSession([Recorder("a", calls)]) as session:
        event = callbacks.initialize(model="a model")
        with callbacks.calibration_epoch(dataset="text"):
            with callbacks.batch(ids=[1]) as started:
                assert started is session.lifecycle.event
                callbacks.loss_calculated(loss=0.5)
                callbacks.optim_pre_step()
                callbacks.optim_post_step(skipped=True)
            callbacks.sequential_epoch_end(modules="layer 0")
        callbacks.event("batch_start")
        callbacks.loss_calculated(loss=0.5)
        callbacks.batch_end()
        callbacks.finalize()
    assert event is session.lifecycle.event
    assert [member.name for member in session.lifecycle.history] == [
        "INITIALIZE",
        "CALIBRATION_EPOCH_START",
        "BATCH_START",
        "LOSS_CALCULATED",
        "OPTIM_PRE_STEP",
        "OPTIM_POST_STEP",
        "BATCH_END",
        "SEQUENTIAL_EPOCH_END",
        "CALIBRATION_EPOCH_END",
        "BATCH_START",
        "LOSS_CALCULATED",
        "BATCH_END",
        "FINALIZE",
    ]
    payloads = [detail[-1] for detail in session.modifiers[0].details]
    assert payloads[:4] == [{"model": "a model"}, {"dataset": "text"}, {"dataset": "text"}, {"ids": [1]}]


def test_callbacks_fire_on_the_innermost_session():
    outer, inner = training(), training()
    with outer:
        callbacks.initialize(model="outer")
        with inner:
            run_by_callbacks("inner")
        callbacks.batch_start(name="outer")
        outer.abort()
    assert outer.modifiers[0].calls == ["m.on_initialize", *["m.on_event", "m.on_start", "m.on_update"], "m.on_abort"]
    assert names_seen(inner) == {"inner"}


@pytest.mark.parametrize("bracket", ["batch", "calibration_epoch"])
def test_a_bracket_is_ended_on_the_session_that_it_was_begun_on(bracket):
    def run():
        first = create_session()
        first.initialize()
        with getattr(callbacks, bracket)():
            second = create_session()
            second.initialize()
            if bracket == "batch":
                first.loss_calculated(loss=0.5)
        return first, second

    first, second = contextvars.copy_context().run(run)
    assert first.lifecycle.state == "session.ready"
    assert len(first.lifecycle.history) > len(second.lifecycle.history) == 1


@pytest.mark.parametrize("bracket", ["batch", "calibration_epoch"])
def test_a_bracket_that_raises_does_not_end(bracket):
    with CompressionSession() as session:
        callbacks.initialize()
        with pytest.raises(ZeroDivisionError), getattr(callbacks, bracket)():
            raise ZeroDivisionError
        assert session.lifecycle.history[-1].value == f"{bracket}_start"
        session.abort()


# Threads


def test_a_new_thread_has_no_session():
    found = []
    with training():
        start_and_join(lambda: found.append(current()))
    assert found == [None]


def start_and_join(*functions):
    """Run functions in threads of their own; raise what one of them raised."""
    errors = []

    def run(function):
        try:
            function()
        except BaseException as error:  # noqa: BLE001 # raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error


def test_two_threads_with_interleaved_events_each_see_their_own_session():
    sessions = {name: training() for name in ("first", "second")}
    turn = threading.Barrier(2, timeout=10)

    def work(name):
        def run():
            with sessions[name] as session:
                run_by_callbacks(name, turn.wait)
                turn.wait()
                assert active_session() is session

        return run

    start_and_join(*(work(name) for name in sessions))
    assert {name: names_seen(session) for name, session in sessions.items()} == {
        "first": {"first"},
        "second": {"second"},
    }
    assert [session.lifecycle.event.global_step for session in sessions.values()] == [2, 2]


def test_a_worker_thread_that_creates_a_session_leaves_that_of_the_main_thread_alone():
    created = []

    def work():
        created.append(create_session([Recorder()], "training"))
        run_by_callbacks("worker")

    with training() as session:
        callbacks.initialize(model="main")
        start_and_join(work)
        assert active_session() is session
        callbacks.batch_start(name="main")
        session.abort()
    assert [event.name for event in session.lifecycle.history] == ["INITIALIZE", "BATCH_START"]
    assert created[0].lifecycle.status == "finalized"


def test_a_session_that_ends_in_one_thread_stays_active_in_another():
    entered, left = threading.Event(), threading.Event()
    session, found = training(), {}

    def stays():
        session.activate()
        entered.set()
        assert left.wait(10)
        found["stays"] = active_session()

    def leaves():
        with session:
            assert entered.wait(10)
        left.set()
        found["leaves"] = current()

    start_and_join(stays, leaves)
    assert found == {"stays": session, "leaves": None}


# Tasks


def test_two_tasks_with_interleaved_events_each_see_their_own_session():
    order = []

    async def work(name):
        with training(name, order) as session:
            callbacks.initialize(model=name)
            for _ in range(3):
                await asyncio.sleep(0)
                assert active_session() is session
                with callbacks.batch(name=name):
                    await asyncio.sleep(0)
                    callbacks.loss_calculated(loss=name)
                    await asyncio.sleep(0)
        return session

    async def main():
        sessions = await asyncio.gather(work("a"), work("b"))
        assert current() is None
        return sessions

    for session, name in zip(asyncio.run(main()), "ab", strict=True):
        assert names_seen(session) == {name}
        assert session.lifecycle.event.global_batch == 3
    begins = [call for call in order if call.endswith("on_event")]
    assert begins[:4] == ["a.on_event", "b.on_event", "a.on_event", "b.on_event"]


def test_a_task_begins_with_the_session_of_its_parent_and_does_not_change_it():
    async def child():
        inherited = active_session()
        create_session()
        return inherited, active_session()

    async def main():
        with training() as session:
            inherited, own = await asyncio.create_task(child())
            assert (inherited, active_session()) == (session, session)
            assert own is not session

    asyncio.run(main())


def test_a_copied_context_has_the_session_that_was_active_and_keeps_it():
    with training() as session:
        context = contextvars.copy_context()
    assert context.run(active_session) is session


def test_what_is_created_in_a_copied_context_stays_there():
    with training() as session:
        context = contextvars.copy_context()
        created = context.run(create_session)
        assert (active_session(), context.run(active_session)) == (session, created)
