"""The protocol `upstream` against the real LLM Compressor, which has to be installed."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmcompressor.core import CompressionLifecycle
from llmcompressor.core import EventType as RealEventType
from loguru import logger

from lifecycle import IllegalEventError, Lifecycle, protocols

logger.disable("llmcompressor")

FIRED = ["calibration_start", "batch_start", "loss_calculated", "optim_pre_step", "optim_post_step", "batch_end"]
FIRED += ["sequential_epoch_end", "calibration_end"]
EVENTS = ["initialize", *FIRED, "finalize"]


def fire_real(real, event):
    """Whether the real lifecycle takes an event."""
    try:
        if event == "initialize":
            real.initialize()
        elif event == "finalize":
            real.finalize()
        else:
            real.event(RealEventType(event), loss=1.0)
    except ValueError:
        return False
    return True


def fire_ours(lc, event):
    try:
        lc.fire(event, loss=1.0)
    except IllegalEventError:
        return False
    return True


def real_after(events):
    real = CompressionLifecycle()
    assert all(fire_real(real, event) for event in events)
    return real


def test_every_order_of_four_events_is_judged_alike():
    accepted = [()]
    counts = []
    for _ in range(4):
        following = []
        for prefix, event in itertools.product(accepted, EVENTS):
            before = ("initialize", *prefix)
            if fire_real(real_after(before), event):
                assert protocols.UPSTREAM.is_legal((*before, event))
                if event in FIRED:
                    following.append((*prefix, event))
            else:
                assert not protocols.UPSTREAM.is_legal((*before, event))
        accepted = following
        counts.append(len(accepted))
    assert counts == [5, 27, 155, 927]


@pytest.mark.parametrize("event", EVENTS)
def test_before_initialize_only_initialize_is_taken(event):
    assert (
        fire_real(CompressionLifecycle(), event) == fire_ours(Lifecycle("upstream"), event) == (event == "initialize")
    )


@pytest.mark.parametrize("event", [*FIRED, "finalize"])
def test_after_finalize_nothing_is_taken(event):
    ours = Lifecycle("upstream")
    assert fire_ours(ours, "initialize")
    assert fire_ours(ours, "finalize")
    assert not fire_real(real_after(["initialize", "finalize"]), event)
    assert not fire_ours(ours, event)


def test_initialize_after_finalize_is_the_one_difference_there_it_silently_does_nothing():
    assert fire_real(real_after(["initialize", "finalize"]), "initialize")
    assert not protocols.UPSTREAM.is_legal(["initialize", "finalize", "initialize"])


@given(st.lists(st.sampled_from(EVENTS[:-1]), max_size=60))
def test_long_runs_are_judged_alike_event_by_event(events):
    real, ours = real_after(["initialize"]), Lifecycle("upstream")
    assert fire_ours(ours, "initialize")
    for event in events:
        assert fire_real(real, event) == fire_ours(ours, event)


def test_the_real_lifecycle_stays_at_step_zero_over_three_batches():
    real = real_after(["initialize"])
    for event in ("batch_start", "loss_calculated", "optim_pre_step", "optim_post_step", "batch_end") * 3:
        assert fire_real(real, event)
    assert real.global_step == 0
