import html
import re

import pytest
from drawing import FLAT, RUN, generated
from hypothesis import given

from lifecycle import protocols
from lifecycle.diagram import to_table
from lifecycle.diagram.text import visible


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def shown(cell):
    """A cell as a reader sees it."""
    return html.unescape(re.sub(r"^<code>|</code>|`", "", cell))


def test_the_table_has_one_row_for_each_transition_and_each_final_state():
    assert to_table(FLAT) == (
        "| State           | Event         | Guard              | Update | Next state |\n"
        "| --------------- | ------------- | ------------------ | ------ | ---------- |\n"
        "| `new` (initial) | `INITIALIZE`  |                    |        | `open`     |\n"
        "| `open`          | `BATCH_START` |                    |        | `open`     |\n"
        "| `open`          | `FINALIZE`    | counts as expected |        | `done`     |\n"
        "| `done` (final)  |               |                    |        |            |\n"
    )


def test_the_table_of_a_run_says_how_often_and_how_long():
    assert [row[5] for row in cells(to_table(FLAT, RUN))] == [
        "Taken",
        "-" * 19,
        "1x 500 ms",
        "4x 2 s, 500 ms each",
        "never",
        "",
    ]


@pytest.mark.parametrize("protocol", protocols.BUILT_IN.values(), ids=lambda protocol: protocol.name)
def test_every_transition_of_a_built_in_protocol_has_its_row(protocol):
    rows = [
        (re.sub(r" \(.*", "", row[0]).strip("`"), row[1].strip("`"), row[4].strip("`"))
        for row in cells(to_table(protocol))[2:]
        if row[1]
    ]
    assert sorted(rows) == sorted((t.source, t.event.name, t.target) for t in protocol.transitions)


@given(generated())
def test_whatever_the_names_contain_each_stays_in_its_cell(protocol):
    rows = cells(to_table(protocol))
    assert {len(row) for row in rows} == {5}
    found = [(shown(row[1]), shown(row[4])) for row in rows[2:] if row[1]]
    wanted = [
        (visible(t.event.name).strip(), visible(t.target).strip())
        for state in protocol.states
        for t in protocol.transitions
        if t.source == state
    ]
    assert [(event.strip(), target.strip()) for event, target in found] == wanted


@given(generated())
def test_no_name_brings_markup_into_the_table(protocol):
    assert set(re.findall(r"<[^>]*>?", to_table(protocol))) <= {"<code>", "</code>"}
