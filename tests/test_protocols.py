"""The built-in protocols, compared with the languages that `acceptor` knows."""

from __future__ import annotations

from collections import Counter
from itertools import product

import acceptor
import pytest
import sequences
from hypothesis import given
from sequences import EVENT, events

from lifecycle import EventType, IllegalEventError, Lifecycle, ProtocolError, protocols

# All words are taken one by one, and the trees grow at different rates: to 9334 words for `compression` at depth 12.
DEPTHS = {
    "compression": 12,
    "data_free": 20,
    "basic": 12,
    "sequential": 11,
    "training": 20,
    "training_microbatched": 14,
    "upstream": 5,
}
VARIANTS = pytest.mark.parametrize(("name", "repeat"), acceptor.VARIANTS)
# Where optimizer events may repeat, two less: the trees differ from the plain ones in few places.
TREES = pytest.mark.parametrize(
    ("name", "repeat", "depth"), [(name, repeat, DEPTHS[name] - 2 * repeat) for name, repeat in acceptor.VARIANTS]
)
NAMES = pytest.mark.parametrize("name", acceptor.NAMES)
INSIDE = "CBLPOESK"


def engine(name, *, repeat):
    return Lifecycle(sequences.variant(name, repeat=repeat), batches_per_step=2)


def included(smaller, larger):
    """Whether every run of a protocol is one of another: no pair of states that they reach together differs."""
    seen = set()
    pairs = {(smaller.initial, larger.initial)}
    while pairs:
        seen |= pairs
        pairs = {
            (smaller.target(mine, event), larger.target(other, event))
            for mine, other in pairs
            for event in smaller.allowed(mine)
        } - seen
        if any(other is None or (mine in smaller.final and other not in larger.final) for mine, other in pairs):
            return False
    return True


def sequence_counts(protocol, longest):
    """How many sequences of the eight events inside a session it takes, by their length from 1 on."""
    counts = []
    reached = [protocol.target(protocol.initial, EventType.INITIALIZE)]
    for _ in range(longest):
        reached = [
            target for state in reached for letter in INSIDE if (target := protocol.target(state, EVENT[letter]))
        ]
        counts.append(len(reached))
    return counts


def test_there_is_a_protocol_for_every_language_and_no_other():
    assert tuple(protocols.BUILT_IN) == acceptor.NAMES


@NAMES
def test_a_built_in_protocol_is_found_by_its_name(name):
    assert protocols.get(name) is protocols.BUILT_IN[name]
    assert protocols.get(name).name == name


def test_a_mistyped_name_is_refused_with_the_nearest_one():
    with pytest.raises(ProtocolError) as caught:
        protocols.get("sequentail")
    assert str(caught.value) == "'sequentail' is not a built-in protocol; did you mean 'sequential'?"


def test_a_name_that_is_near_to_none_is_refused_with_all_of_them():
    with pytest.raises(ProtocolError) as caught:
        protocols.get("zzz")
    known = ", ".join(map(repr, acceptor.NAMES))
    assert str(caught.value) == f"'zzz' is not a built-in protocol; known: {known}"


@pytest.mark.parametrize("name", acceptor.LANGUAGES)
def test_the_description_begins_with_the_language(name):
    assert protocols.get(name).description.startswith(acceptor.LANGUAGES[name] + ": ")


def test_the_default_protocol_of_a_lifecycle_is_compression():
    assert Lifecycle().protocol is protocols.COMPRESSION


@TREES
def test_the_protocol_agrees_with_the_acceptor_at_every_node_of_the_tree(name, repeat, depth):
    protocol = sequences.variant(name, repeat=repeat)
    machine = acceptor.acceptor(name, repeat=repeat)
    for word in acceptor.words(machine, depth):
        sequence = events(word)
        assert protocol.accepts(sequence) == acceptor.accepts(machine, word), word
        legal = acceptor.follow(machine, acceptor.run(machine, word))
        assert {letter for letter in EVENT if protocol.is_legal([*sequence, EVENT[letter]])} == {*legal}, word


@TREES
def test_the_engine_agrees_with_the_acceptor_at_every_node_of_the_tree(name, repeat, depth):
    machine = acceptor.acceptor(name, repeat=repeat)
    lifecycle = engine(name, repeat=repeat)
    for word in acceptor.words(machine, depth):
        # That the last letter is legal is seen here, for every word of the tree.
        sequences.replay(lifecycle, word)
        legal = acceptor.follow(machine, acceptor.run(machine, word))
        assert set(sequences.letters(lifecycle.allowed)) == set(legal), word
        assert (lifecycle.status == "finalized") == acceptor.accepts(machine, word), word
        for letter in set(acceptor.LETTERS) - set(legal):
            with pytest.raises(IllegalEventError):
                lifecycle.fire(EVENT[letter], loss=0.5)


@TREES
def test_the_engine_counts_as_the_acceptor_at_every_node_of_the_tree(name, repeat, depth):
    lifecycle = engine(name, repeat=repeat)
    for word in acceptor.words(acceptor.acceptor(name, repeat=repeat), depth):
        sequences.replay(lifecycle, word)
        assert sequences.all_counters(lifecycle) == acceptor.counted(word, batches_per_step=2), word


@VARIANTS
def test_states_correspond_one_to_one_to_what_may_follow(name, repeat):
    """So protocol and acceptor agree on sequences of any length, and no state is more than the language needs."""
    protocol = sequences.variant(name, repeat=repeat)
    machine = acceptor.acceptor(name, repeat=repeat)
    pairs = set()
    new = {(protocol.initial, machine.start)}
    while new:
        pairs |= new
        state, follows = new.pop()
        assert set(sequences.letters(protocol.allowed(state))) == set(acceptor.follow(machine, follows))
        assert (state in protocol.final) == machine.complete(follows)
        new |= {
            (protocol.target(state, event), machine.step(follows, sequences.LETTER[event]))
            for event in protocol.allowed(state)
        } - pairs
    assert Counter(state for state, _ in pairs) == Counter(protocol.states)
    assert len({follows for _, follows in pairs}) == len(pairs)


@given(lifecycle=sequences.lifecycles(), run=sequences.long_runs())
def test_counters_equal_a_recount_of_the_accepted_events(lifecycle, run):
    word = ""
    skipped = set()
    for draw in run:
        event, payload = draw.choose(lifecycle)
        if sequences.takes(lifecycle, event, payload):
            if payload.get("skipped"):
                skipped.add(len(word))
            word += sequences.LETTER[event]
        assert sequences.all_counters(lifecycle) == acceptor.counted(
            word,
            skipped,
            invocations_per_step=lifecycle.event.invocations_per_step,
            batches_per_step=lifecycle.event.batches_per_step,
        )
    assert acceptor.is_legal(
        acceptor.acceptor(lifecycle.protocol.name.partition("+")[0], repeat="+" in lifecycle.protocol.name), word
    )


def test_upstream_takes_the_sequences_that_llm_compressor_was_measured_to_take():
    assert sequence_counts(protocols.UPSTREAM, 6) == [5, 27, 155, 927, 5680, 35263]


def test_upstream_takes_of_all_sequences_of_four_events_those_of_the_acceptor():
    machine = acceptor.acceptor("upstream")
    inner = ["".join(letters) for length in range(1, 5) for letters in product(INSIDE, repeat=length)]
    taken = {word for word in inner if protocols.UPSTREAM.is_legal(events("I" + word))}
    assert Counter(map(len, taken)) == {1: 5, 2: 27, 3: 155, 4: 927}
    assert taken == {word for word in inner if acceptor.is_legal(machine, "I" + word)}


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("compression", [2, 4, 9, 19, 41, 90]),
        ("data_free", [1, 2, 2, 3, 4, 5]),
        ("basic", [1, 3, 4, 8, 14, 24]),
        ("sequential", [1, 2, 5, 9, 18, 37]),
        ("training", [1, 1, 2, 2, 2, 3]),
        ("training_microbatched", [1, 1, 3, 5, 7, 11]),
    ],
)
def test_the_strict_protocols_take_few_sequences(name, counts):
    assert sequence_counts(protocols.get(name), 6) == counts


def test_the_strict_grammar_that_llm_compressor_was_measured_against_is_in_compression_and_in_upstream():
    # Its text is not known; this is a grammar with its counts, in which every layer that ends has a batch.
    strict = acceptor.Grammar("I (C (b+ S)+ K | t)* F")
    words = list(acceptor.words(strict, 8, INSIDE, start="I"))
    assert [sum(len(word) == length + 1 for word in words) for length in range(1, 5)] == [2, 2, 4, 7]
    assert all(protocols.COMPRESSION.is_legal(events(word)) for word in words)
    assert all(protocols.UPSTREAM.is_legal(events(word)) for word in words)


def test_the_inclusions_are_these_and_no_others():
    found = {
        name: {
            other for other in acceptor.NAMES if other != name and included(protocols.get(name), protocols.get(other))
        }
        for name in acceptor.NAMES
    }
    assert found == {
        "compression": {"upstream"},
        "data_free": {"basic", "compression", "upstream"},
        "basic": {"compression", "upstream"},
        "sequential": {"compression", "upstream"},
        "training": {"compression", "training_microbatched", "upstream"},
        "training_microbatched": {"upstream"},
        "upstream": set(),
    }


@pytest.mark.parametrize("name", acceptor.STEPPING)
def test_repeating_steps_only_adds_runs(name):
    protocol = protocols.get(name)
    assert included(protocol, protocol.repeat_steps())
    assert not included(protocol.repeat_steps(), protocol)


@pytest.mark.parametrize("name", sorted(set(acceptor.NAMES) - set(acceptor.STEPPING)))
def test_a_protocol_without_an_optimizer_has_no_steps_to_repeat(name):
    with pytest.raises(ProtocolError) as caught:
        protocols.get(name).repeat_steps()
    assert str(caught.value) == f"protocol {name!r} has no optimizer events, so it has no steps to repeat"


@NAMES
def test_the_events_of_a_protocol_are_those_of_its_language(name):
    used = set("".join(acceptor.words(acceptor.acceptor(name), 8)))
    assert protocols.get(name).events == tuple(event for event in EventType if sequences.LETTER[event] in used)


@pytest.mark.parametrize("name", acceptor.LANGUAGES)
def test_only_losses_and_the_ends_that_are_expected_to_add_up_are_guarded(name):
    guards = {(t.event, t.guard.name) for t in protocols.get(name).transitions if t.guard}
    named = {
        EventType.LOSS_CALCULATED: "loss given",
        EventType.CALIBRATION_EPOCH_END: "counts as expected",
        EventType.FINALIZE: "counts as expected",
    }
    assert guards == {(event, guard) for event, guard in named.items() if event in protocols.get(name).events}


@pytest.mark.parametrize("name", ["training", "training+repeat_steps", "upstream+repeat_steps"])
def test_a_protocol_is_found_by_the_name_that_it_has(name):
    assert protocols.find(name).name == name


@pytest.mark.parametrize("name", ["", "trainig", "trainig+repeat_steps", "data_free+repeat_steps"])
def test_a_name_that_no_protocol_has_is_not_found(name):
    assert protocols.find(name) is None
