"""Several threads on one lifecycle: they take turns, and what each of them sees is whole."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sequences
from runs import fire

from lifecycle import EventType, IllegalEventError, Lifecycle, LifecycleError, ReentrantEventError, Tap

TURNS = 300


@pytest.fixture
def eager_switching():
    """Let threads take turns as often as the interpreter can, so that what is not kept apart shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Run functions at the same time; raise what any of them raised."""
    ready = threading.Barrier(len(functions))

    def run(function):
        ready.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(run, function) for function in functions]]


def safe(protocol="data_free", word="I"):
    return fire(Lifecycle(protocol, thread_safe=True), word)


def epochs(lifecycle, turns=TURNS):
    """Fire calibration epochs, whatever other threads do."""

    def run():
        for _ in range(turns):
            fire(lifecycle, "CSK")

    return run


def repeat(act, turns=TURNS):
    def run():
        for _ in range(turns):
            act()

    return run


def test_threads_that_fire_are_let_in_one_at_a_time(eager_switching):
    lc = safe("compression", "IC")
    inside = []

    def observer(event, payload):
        inside.append(payload["thread"])
        inside.append(payload["thread"])

    lc.on(EventType, observer)
    together(*(repeat(lambda name=name: lc.sequential_epoch_end(thread=name)) for name in range(3)))
    assert lc.progress.total_sequential_epochs == 3 * TURNS
    assert inside[::2] == inside[1::2]


def test_of_threads_that_fire_the_same_event_one_gets_through(eager_switching):
    for _ in range(30):
        lc = safe("training")

        def start(lc=lc):
            try:
                lc.batch_start()
            except IllegalEventError:
                return "refused"
            return "accepted"

        assert sorted(together(*[start] * 3)) == ["accepted", "refused", "refused"]
        assert (lc.progress.accepted, lc.progress.rejected) == (2, 2)


def test_a_thread_waits_until_the_observers_of_another_have_returned():
    lc = safe("training")
    order = []
    started = threading.Event()
    other = threading.Thread(target=lambda: (started.set(), lc.loss_calculated(loss=1), order.append("other")))

    def observer(event, payload):
        other.start()
        started.wait()
        other.join(0.05)
        order.append("observer")

    lc.on("batch_start", observer)
    lc.batch_start()
    other.join()
    assert order == ["observer", "other"]
    assert lc.history == tuple(sequences.events("IBL"))


@pytest.mark.parametrize(
    "act",
    [
        lambda lc: lc.batch_start(),
        lambda lc: lc.fire("BATCH_START"),
        lambda lc: lc.reset(),
        lambda lc: lc.load_state_dict(lc.state_dict()),
    ],
    ids=["fire", "fire by name", "reset", "load_state_dict"],
)
def test_a_reentrant_call_of_the_same_thread_is_an_error_and_no_deadlock(act):
    lc = safe("training", "")
    lc.on("initialize", lambda event, payload: act(lc))
    with pytest.raises(ReentrantEventError):
        lc.initialize()
    assert lc.history == (EventType.INITIALIZE,)


def test_a_suspension_by_one_thread_loses_no_event_of_another(eager_switching):
    lc = safe()

    def suspend():
        with lc.suspended("evaluation"):
            pass

    together(epochs(lc), repeat(suspend))
    assert lc.progress.calibration_epochs == TURNS
    assert fire(lc, "F").status == "finalized"


class InterruptedOnce:
    """A lock; who waits for it first is interrupted."""

    def __init__(self, lock):
        self.lock = lock
        self.interrupted = False

    def __enter__(self):
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return self.lock.__enter__()

    def __exit__(self, *error):
        return self.lock.__exit__(*error)


def test_an_interrupt_while_waiting_to_suspend_suspends_nothing():
    lc = safe("training")
    lc._lock = InterruptedOnce(lc._lock)
    with pytest.raises(KeyboardInterrupt), lc.suspended("evaluation"):
        pass
    # By name, since that is checked in full.
    lc.fire("BATCH_START")
    assert (lc.state, lc.progress.ignored) == ("session.batch.started", 0)


def test_suspensions_of_several_threads_all_end(eager_switching):
    lc = safe("training")

    def suspend():
        with lc.suspended("evaluation"):
            lc.batch_start()

    together(*[repeat(suspend)] * 3)
    assert lc.progress.ignored == 3 * TURNS
    assert fire(lc, "B").state == "session.batch.started"


def test_after_suspensions_by_several_threads_the_run_can_be_moved(eager_switching):
    for _ in range(20):
        lc = safe()

        def suspend(lc=lc):
            with lc.suspended("evaluation"):
                pass

        together(*[repeat(suspend, 50)] * 3)
        assert lc.reset() == "abandoned"
        assert fire(lc, "ICKF").status == "finalized"


@pytest.mark.parametrize("control", ["suspend", "resume", "abort", "reset"])
def test_a_thread_is_not_refused_since_a_tap_is_told_what_another_does(control):
    lc = safe()
    outcomes = []

    def begin():
        try:
            lc.fire("calibration_epoch_start" if control in {"suspend", "resume"} else "initialize")
        except LifecycleError as error:
            outcomes.append(type(error))
        else:
            outcomes.append("accepted")

    other = threading.Thread(target=begin)

    class Waiting(Tap):
        def control(self, lifecycle, action, detail):
            if action == control:
                other.start()
                other.join(0.05)

    lc.attach(Waiting())
    if control in {"suspend", "resume"}:
        with lc.suspended("evaluation"):
            pass
    else:
        getattr(lc, control)()
    other.join()
    assert outcomes == [IllegalEventError if control == "abort" else "accepted"]


def test_what_one_thread_saves_while_another_fires_is_a_whole_run(eager_switching):
    lc = safe()
    saved = []
    together(epochs(lc), repeat(lambda: saved.append(lc.state_dict())))
    for run in saved:
        starts, layers, ends = (run["history"].count(value.value) for value in sequences.events("CSK"))
        assert run["event"]["type_"] == run["history"][-1]
        assert len(run["history"]) == min(run["progress"]["accepted"], 16)
        assert run["progress"]["calibration_epochs"] * 3 + 1 <= run["progress"]["accepted"]
        assert max(starts, layers, ends) - min(starts, layers, ends) <= 1
        Lifecycle("data_free").load_state_dict(run)


def test_an_abort_by_one_thread_stops_another(eager_switching):
    for _ in range(20):
        lc = safe()

        def go_on(lc=lc):
            with pytest.raises(IllegalEventError, match="the run was aborted"):
                epochs(lc, 10**6)()

        together(go_on, lambda lc=lc: lc.abort("out of time"))
        assert lc.status == "aborted"
        assert lc.progress.rejected == 1


def test_observers_that_several_threads_register_are_all_called(eager_switching):
    lc = safe()
    calls = []
    together(*[repeat(lambda: lc.on("calibration_epoch_start", lambda event, payload: calls.append(1)), 50)] * 3)
    fire(lc, "C")
    assert len(calls) == 150


def test_observers_that_several_threads_remove_are_all_gone(eager_switching):
    lc = safe()
    calls = []
    handles = [lc.on("calibration_epoch_start", lambda event, payload: calls.append(1)) for _ in range(150)]
    together(*(repeat(lambda part=handles[part::3]: part.pop().remove(), 50) for part in range(3)))
    fire(lc, "C")
    assert calls == []


def test_resets_by_one_thread_leave_whole_runs(eager_switching):
    lc = safe()
    outcomes = []

    def begin():
        try:
            fire(lc, "I")
        except IllegalEventError:
            return

    together(repeat(lambda: outcomes.append(lc.reset())), repeat(begin))
    assert set(outcomes) <= {"created", "abandoned"}
    assert lc.state in {"created", "session.ready"}
    assert lc.progress.accepted == len(lc.history)


def test_without_threads_a_safe_lifecycle_is_one_like_any_other():
    lc, plain = safe("compression", "ICBLESKBLPOEF"), fire(Lifecycle(), "ICBLESKBLPOEF")
    assert lc.state_dict() == plain.state_dict()
