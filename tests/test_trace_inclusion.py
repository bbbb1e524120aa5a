"""Which protocols include others, against the words that they accept."""

from __future__ import annotations

import itertools

import acceptor
import pytest
import sequences
from hypothesis import given

from lifecycle import Protocol, Transition, protocols
from lifecycle.trace.checking.inclusion import includes, smallest

PAIRS = list(itertools.product(protocols.BUILT_IN.values(), repeat=2))


def short_runs(protocol, length=7):
    """All runs of a length at most, but for their first and last event."""
    found = set()
    ahead = [((), protocol.initial)]
    while ahead:
        word, state = ahead.pop()
        if state in protocol.final:
            found.add(word)
        if len(word) < length:
            ahead += [((*word, event), protocol.target(state, event)) for event in protocol.allowed(state)]
    return found


RUNS = {protocol.name: short_runs(protocol) for protocol in protocols.BUILT_IN.values() if protocol.name != "upstream"}


@pytest.mark.parametrize(("large", "small"), PAIRS, ids=lambda protocol: protocol.name)
def test_a_protocol_includes_another_if_it_accepts_all_its_runs(large, small):
    if small.name == "upstream":
        assert includes(large, small) == (large is small)
        return
    assert includes(large, small) == all(map(large.accepts, RUNS[small.name]))


def test_every_language_of_the_design_is_in_compression_but_that_of_micro_batches():
    inside = {protocol.name for protocol in protocols.BUILT_IN.values() if includes(protocols.COMPRESSION, protocol)}
    assert inside == {*acceptor.LANGUAGES} - {"training_microbatched"}


@given(sequences.random_protocols(), sequences.random_protocols())
def test_inclusion_is_that_of_the_runs_of_any_protocols(large, small):
    runs = short_runs(small, 5)
    if includes(large, small):
        assert all(map(large.accepts, runs))
    if not all(map(large.accepts, runs)):
        assert not includes(large, small)


@given(sequences.random_protocols())
def test_a_protocol_includes_itself(protocol):
    assert includes(protocol, protocol)


def test_the_smallest_are_those_that_include_no_other():
    def named(*names):
        return [protocol.name for protocol in smallest(map(protocols.get, names))]

    assert named("upstream", "compression", "training") == ["training"]
    assert named("basic", "data_free", "sequential") == ["data_free", "sequential"]
    assert named() == []


def test_of_protocols_that_include_each_other_all_are_smallest():
    again = protocols.TRAINING.extend("again")
    assert smallest([protocols.TRAINING, again]) == [protocols.TRAINING, again]


def test_a_run_that_the_large_protocol_has_not_ended_is_not_included():
    def chain(*events):
        states = [f"after {number}" for number in range(len(events) + 1)]
        moves = [Transition(*move) for move in zip(states, events, states[1:], strict=False)]
        return Protocol("chain", states, moves, states[0], states[-1:])

    assert not includes(chain("initialize", "finalize"), chain("initialize"))
