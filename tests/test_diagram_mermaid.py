import html
import re

import pytest
from drawing import FLAT, RUN, generated
from hypothesis import given

from lifecycle import Protocol, Transition, protocols
from lifecycle.diagram import picture, to_mermaid
from lifecycle.diagram.text import visible


def test_a_flat_protocol():
    assert to_mermaid(picture(FLAT)) == (
        "stateDiagram-v2\n"
        "    accTitle: flat lifecycle\n"
        "    direction TB\n"
        '    state "new" as s0\n'
        '    state "open" as s1\n'
        '    state "done" as s2\n'
        "    [*] --> s0\n"
        "    s0 --> s1 : INITIALIZE\n"
        "    s1 --> s1 : BATCH_START\n"
        "    s1 --> s2 : FINALIZE [counts as expected]\n"
        "    s2 --> [*]\n"
        "    classDef final fill:#dcfce7,stroke:#15803d,stroke-width:2px,color:#0f172a\n"
        "    class s2 final\n"
    )


def test_a_run_marks_where_it_stands_and_what_was_rejected():
    assert to_mermaid(picture(FLAT, RUN)).splitlines()[3:] == [
        '    state "new" as s0',
        '    state "open" as s1',
        '    state "BATCH_END event 3" as s1r0',
        '    state "done" as s2',
        "    [*] --> s0",
        "    s0 --> s1 : INITIALIZE (1x 500 ms)",
        "    s1 --> s1 : BATCH_START (4x 2 s#44; 500 ms each) handler failed ValueError#58; #60;bad#62;",
        "    s1 --> s2 : FINALIZE [counts as expected] (never)",
        "    s2 --> [*]",
        "    s1 --> s1r0 : rejected",
        "    classDef final fill:#dcfce7,stroke:#15803d,stroke-width:2px,color:#0f172a",
        "    class s2 final",
        "    classDef current fill:#fde68a,stroke:#b45309,stroke-width:3px,color:#0f172a",
        "    class s1 current",
        "    classDef rejected fill:#fee2e2,stroke:#b91c1c,stroke-width:2px,color:#0f172a",
        "    class s1r0 rejected",
    ]


def test_states_are_declared_in_their_boxes_before_any_arrow():
    lines = to_mermaid(picture(protocols.TRAINING)).splitlines()
    assert lines[3:16] == [
        '    state "created" as s0',
        '    state "finalized" as s6',
        '    state "session" as b0 {',
        '        state "ready" as s1',
        '        state "batch" as b1 {',
        '            state "started" as s2',
        '            state "loss" as s3',
        '            state "step" as b2 {',
        '                state "pending" as s4',
        '                state "taken" as s5',
        "            }",
        "        }",
        "    }",
    ]


def test_another_direction_can_be_asked_for():
    assert "    direction LR\n" in to_mermaid(picture(FLAT), direction="LR")


@pytest.mark.parametrize(("name", "shown"), [(" a ", "#160;a#160;"), (":", "#58;"), ("+ a", "#43; a"), ("ä", "#228;")])
def test_what_means_something_in_mermaid_is_written_as_a_number(name, shown):
    protocol = Protocol(
        "p", states=["x", name], transitions=[Transition("x", "initialize", name)], initial="x", final=[name]
    )
    assert f'state "{shown}" as s1' in to_mermaid(picture(protocol))


def test_events_between_the_same_states_share_a_line():
    more = FLAT.extend("more", transitions=[Transition("open", "batch_end", "open")])
    assert "    s1 --> s1 : BATCH_START<br/>BATCH_END / global_batch += 1\n" in to_mermaid(picture(more))


def read(text):
    """A text as Mermaid shows it."""
    return html.unescape(re.sub(r"#(\d+);", r"&#\1;", text)).strip()


@given(generated())
def test_every_state_and_transition_is_there_once_whatever_the_names(protocol):
    lines = [line.strip() for line in to_mermaid(picture(protocol)).splitlines()]
    states = [re.fullmatch(r'state "(.*)" as (s\d+)', line) for line in lines]
    found = {match[2]: read(match[1]) for match in states if match}
    assert found == {f"s{n}": visible(state.rpartition(".")[2]).strip() for n, state in enumerate(protocol.states)}
    arrows = [match for line in lines if (match := re.fullmatch(r"(s\d+) --> (s\d+) : (.*)", line))]
    keys = {state: f"s{n}" for n, state in enumerate(protocol.states)}
    shown = {
        (source, target): list(map(read, label.split("<br/>")))
        for source, target, label in map(re.Match.groups, arrows)
    }
    assert len(shown) == len(arrows)
    assert sum(map(len, shown.values())) == len(protocol.transitions)
    for t in protocol.transitions:
        events = shown[keys[t.source], keys[t.target]]
        assert any(event.startswith(visible(t.event.name).strip()) for event in events)


@given(generated())
def test_no_name_brings_more_than_words_and_numbers(protocol):
    for line in to_mermaid(picture(protocol)).splitlines()[1:]:
        words = re.sub(r"^ *(accTitle: |state \"|\[\*\] --> |s\d+ --> s\d+ : |s\d+ --> \[\*\])", "", line)
        words = re.sub(r'(" as [sb]\d+( \{)?|^ *\}|^ *direction TB|^ *class.*)$', "", words)
        assert re.fullmatch(r"([A-Za-z0-9_ +=]|#\d+;|\[|\]|/|<br/>)*", words)
