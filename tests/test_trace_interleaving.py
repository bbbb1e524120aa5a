"""Runs whose events are interleaved, against a search that shares out every event."""

from __future__ import annotations

import itertools

import sequences
from hypothesis import given
from hypothesis import strategies as st
from traces import only_run

from lifecycle import protocols
from lifecycle.trace.checking import interleaving as module
from lifecycle.trace.checking.interleaving import Interleaving

COMPLETE = {
    name: [
        word
        for length in range(2, 7)
        for word in map("".join, itertools.product("ICBESKF", repeat=length))
        if word[0] == "I" and word[-1] == "F" and protocols.get(name).accepts(sequences.events(word))
    ]
    for name in ("sequential",)
}
"""All short runs."""


def followed(word, protocol="sequential"):
    """The runs that a word is taken for, whose first event begins one and whose second event begins another."""
    events = sequences.events(word)
    protocol = protocols.get(protocol)
    found = Interleaving(protocol, protocol.target(protocol.initial, events[0]), events[1])
    for event in events[2:]:
        found.take(event)
    return found.runs()


def shuffled(words, order):
    """Words merged: the next letter is that of the word that the order says, if it has one left."""
    left = [list(word) for word in words]
    merged = [each.pop(0) for each in left]
    while any(left):
        has = [each for each in left if each]
        merged.append(has[next(order) % len(has)].pop(0))
    return "".join(merged)


@given(
    words=st.lists(st.sampled_from(COMPLETE["sequential"]), min_size=2, max_size=3),
    order=st.lists(st.integers(0, 5), min_size=20, max_size=20),
)
def test_runs_that_are_interleaved_are_recognised(words, order):
    found = followed(shuffled(words, itertools.cycle(order)))
    assert 2 <= found <= len(words)


def test_what_runs_cannot_explain_is_no_interleaving():
    assert followed("IIF") == 0
    assert followed("IIFFF") == 0
    assert followed("IIBEFF") == 0


def test_three_runs_are_three():
    assert followed("IIIFFF") == 3


def test_no_more_than_the_most_runs_are_followed():
    most = module.MOST_RUNS
    assert followed("I" * most + "F" * most) == most
    assert followed("I" * (most + 1) + "F" * (most + 1)) == 0


def test_when_there_are_too_many_ways_to_share_out_the_events_none_is_followed(monkeypatch):
    word = "IICCBBEESSKKFF"
    assert followed(word) == 2
    monkeypatch.setattr(module, "MOST_CONFIGURATIONS", 1)
    assert followed("IIFF") == 2
    assert followed(word) == 0


def test_a_trace_says_how_many_runs_are_interleaved_in_it():
    assert only_run("ICBICBESEKSFKF", protocol="sequential").interleaved == 2
    assert only_run("ICBBESKF", protocol="sequential").interleaved == 0
    assert only_run("II", protocol="training").interleaved == 0
