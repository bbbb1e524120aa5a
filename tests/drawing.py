"""Protocols to draw: small ones, and generated ones whose names try to break out."""

import enum
import io
import stat
import sys
from dataclasses import replace
from itertools import pairwise

from hypothesis import strategies as st

from lifecycle import EventType, Guard, Protocol, Transition, Update, trace
from lifecycle.diagram import Overlay, Rejection, Tally
from lifecycle.trace.report import TransitionCount

PIECES = [
    *"\"'<>&\\][{};:%#|`*_~()=/$ \n\t\r\x00\x1b\ud800\u202e\u2028\uffff",
    *("é", "ß", "漢", "🙂", "a", "b", "Z", "0", "  ", "\\N", "\\G", "->", "-->", "--", "[*]", "#59;", "%%{init}%%"),
    *(
        "<b>",
        "</b>",
        "<br/>",
        "<script>alert(1)</script>",
        "]]>",
        "<!--",
        "&amp;",
        "&lt;",
        '" onload="x',
        "javascript:x",
    ),
    *("end", "state", "note", "class", "style", "classDef", "1. x", "- x", "+ x", "# x", "http://x.y"),
]
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join) | st.text(min_size=1, max_size=8)
PARTS = NAMES.map(lambda name: name.replace(".", ":"))


def vocabulary(names):
    """An enumeration of events that are called whatever they are called."""
    # A prefix and a suffix, since Enum keeps names such as `_x_` and `mro` to itself.
    members = [(f"E{number} {name} e", f"v{number}") for number, name in enumerate(names)]
    return enum.Enum("Generated", members, type=str)


@st.composite
def generated(draw, most=12):
    """A protocol of any shape: nested states, loops, several events between two states, and names of any kind."""
    groups = [()]
    for part in draw(st.lists(PARTS, max_size=5)):
        groups.append((*draw(st.sampled_from(groups)), f"{len(groups)}{part}"))
    names = [
        ".".join((*draw(st.sampled_from(groups)), f"s{number}{draw(PARTS)}"))
        for number in range(draw(st.integers(2, most)))
    ]
    events = list(vocabulary(draw(st.lists(NAMES, min_size=2, max_size=5))))
    # A few rules for all transitions, since names are slow to generate.
    rules = draw(st.lists(NAMES, min_size=1, max_size=3))
    guards = st.sampled_from([None, *(Guard(name, lambda counted, payload: True) for name in rules)])
    updates = st.sampled_from([None, *(Update(name, lambda event, progress, payload: None) for name in rules)])
    moves = {(source, events[0]): target for source, target in pairwise(names)}
    for source, event, target in draw(
        st.lists(
            st.tuples(st.sampled_from(names[:-1]), st.sampled_from(events[1:]), st.sampled_from(names)), max_size=20
        )
    ):
        moves[source, event] = target
    return Protocol(
        draw(NAMES),
        states=draw(st.permutations(names)),
        transitions=[Transition(s, e, t, draw(guards), draw(updates)) for (s, e), t in moves.items()],
        initial=names[0],
        final=[names[-1]],
        vocabularies=[type(events[0])],
        description=draw(NAMES | st.just("")),
    )


def many(count):
    """A protocol of many states, in groups of ten, each with an event back to the first of its group."""
    names = [f"group {number // 10}.state {number}" for number in range(count)]
    back = [Transition(name, "batch_end", names[number // 10 * 10]) for number, name in enumerate(names[:-1])]
    on = [Transition(name, "batch_start", after) for name, after in pairwise(names)]
    return Protocol("many", states=names, transitions=[*on, *back], initial=names[0], final=[names[-1]])


FLAT = Protocol(
    "flat",
    states=["new", "open", "done"],
    transitions=[
        Transition("new", EventType.INITIALIZE, "open"),
        Transition("open", EventType.BATCH_START, "open"),
        Transition("open", EventType.FINALIZE, "done"),
    ],
    initial="new",
    final=["done"],
)

RUN = Overlay(
    name="run.jsonl",
    verdict="5 events, 1 violation, incomplete in open",
    current="open",
    tallies={("new", "INITIALIZE"): Tally(1, 0.5), ("open", "BATCH_START"): Tally(4, 2.0)},
    visited=frozenset(["new", "open"]),
    rejections=(Rejection("open", "BATCH_END", (3,)),),
    failures={("open", "BATCH_START"): "ValueError: <bad>"},
)


def program(folder, code, name="program"):
    """A program that does what some Python says, with its input as `source` and its arguments as `sys.argv`."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\nsource = sys.stdin.buffer.read()\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


LINES = b"".join(b'{"event": "%s"}\n' % name for name in (b"INITIALIZE", b"BATCH_START", b"BATCH_START", b"FINALIZE"))


def run(**changes):
    """A run of the protocol `FLAT`, as the checker reports it, with changes."""
    (usual,) = trace.check(io.BytesIO(LINES), FLAT).runs
    transitions = (
        TransitionCount("new", "initialize", "open", 1, 500),
        TransitionCount("open", "batch_start", "open", 2, 3_000_000_000),
        TransitionCount("open", "finalize", "done", 1, 0),
    )
    return replace(usual, **{"transitions": transitions, **changes})


def report(*runs):
    """The report of a trace that has these runs."""
    usual = trace.check(io.BytesIO(LINES), FLAT, name="run.jsonl")
    return replace(usual, ok=all(each.ok for each in runs), run_count=len(runs), runs=runs)


GRAPHVIZ = b"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<!-- Title: lifecycle -->
<svg width="10pt" height="20pt" viewBox="0.00 0.00 10.00 20.00"
 xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">
<g id="graph0" class="graph" transform="scale(1 1)"><title>lifecycle</title>
<polygon fill="#ffffff" points="0,0 10,20"/>
<!-- s0 -->
<g id="node1" class="node state"><title>s0</title>
<path fill="#fefefe" stroke="#334155" d="M10,2C20,2 30,2.5 30,4"/>
<text text-anchor="start" x="11" y="3" font-size="12.00">new</text>
</g>
<g id="edge1" class="edge main"><title>s0&#45;&gt;e0</title><path stroke="#64748b" d="M0,0C1,1 2,2 3,3"/></g>
<g id="node2" class="node event"><title>e0</title><text x="7">no outline</text></g>
<g class="edge start"><title>start&#45;&gt;s0</title></g>
<g class="edge rejected"><title>s1&#45;&gt;s1r0</title></g>
<g class="cluster box"><title>cluster_b0</title></g>
<g class="cluster whole"><title>cluster_whole</title></g>
</g>
</svg>
"""
"""What Graphviz writes, in small."""

PNG = b"\x89PNG\r\n\x1a\n rest IEND\xaeB`\x82"
PDF = b"%PDF-1.7 rest %%EOF\n"
"""What a checked file of these formats begins and ends with."""
