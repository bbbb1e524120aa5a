import re
import subprocess
import sys
from math import log10

import pytest
from drawing import FLAT, RUN, generated, many
from hypothesis import given

from lifecycle import Protocol, Transition, protocols
from lifecycle.diagram import Overlay, Tally, picture, to_dot
from lifecycle.diagram.palette import DARK, LIGHT


def statements(dot, kind):
    """The statements whose class begins with a word."""
    return re.findall(rf'^.*\[.*class="?{kind}\b.*\]$', dot, re.MULTILINE)


def attribute(statement, name):
    # The last, since a label comes first and may have attributes of its own.
    return re.findall(rf'\b{name}="?([^" \]]*)', statement)[-1]


def of_states(dot, name):
    """An attribute of each state: its own, or what all nodes have."""
    (default,) = re.findall(rf'^\tnode \[.*\b{name}="?([^" \]]*)', dot, re.MULTILINE)
    own = {line.split()[0]: re.findall(rf'\b{name}="?([^" \]]*)', line) for line in statements(dot, "state")}
    return {state: found[-1] if found else default for state, found in own.items()}


def test_the_default_protocol_is_drawn_from_top_to_bottom_on_white():
    dot = to_dot(picture(protocols.COMPRESSION))
    assert f'bgcolor="{LIGHT.paper}"' in dot
    assert "rankdir=TB" in dot


def test_another_direction_and_theme_can_be_asked_for():
    dot = to_dot(picture(FLAT), theme="dark", direction="LR")
    assert f'bgcolor="{DARK.paper}"' in dot
    assert "rankdir=LR" in dot
    assert not [color for color, _ in LIGHT.pairs(DARK) if color in dot]


def test_the_usual_path_weighs_more_than_everything_beside_it():
    dot = to_dot(picture(protocols.TRAINING))
    main = {attribute(line, "weight") for line in statements(dot, "main")}
    back = {attribute(line, "weight") for line in statements(dot, "back") if "weight" in line}
    assert (main, back) == ({"100"}, {"3"})


def test_what_goes_back_is_written_from_target_to_source():
    back = statements(to_dot(picture(protocols.TRAINING)), "back")
    assert [line.split(" [")[0].strip() for line in back[:2]] == ["s1 -> e5", "e5 -> s5"]
    assert ["dir=back" in line for line in back[:2]] == [True, False]


def test_a_loop_goes_through_a_text_on_the_same_rank():
    dot = to_dot(picture(FLAT))
    assert "{ rank=same; s1; e1 }" in dot
    assert [line.split(" [")[0].strip() for line in statements(dot, "loop")] == ["s1 -> e1", "s1 -> e1"]


def test_a_loop_is_below_its_state_where_the_usual_path_runs_from_left_to_right():
    loop = statements(to_dot(picture(FLAT), direction="LR"), "loop")
    assert [line.split(" [")[0].strip() for line in loop] == ["e1 -> s1", "e1 -> s1"]


BRANCHED = Protocol(
    "branched",
    states=["a", "b", "c", "d", "e"],
    transitions=[
        Transition("a", "initialize", "b"),
        Transition("b", "batch_start", "c"),
        Transition("c", "batch_end", "b"),
        Transition("b", "calibration_epoch_start", "d"),
        Transition("d", "calibration_epoch_end", "b"),
        Transition("d", "finalize", "e"),
    ],
    initial="a",
    final=["e"],
)


@pytest.mark.parametrize(
    ("direction", "ends"),
    [
        ("TB", ["s1:p0:s -> e1", "s1:w -> e2", "s1:p1:s -> e3", "s1:p2:s -> e4"]),
        ("LR", ["s1:p0:e -> e1", "s1:s -> e2", "s1:p1:e -> e3", "s1:p2:e -> e4"]),
    ],
)
def test_arrows_end_at_places_of_their_own_where_some_leave_beside_the_usual_path(direction, ends):
    dot = to_dot(picture(BRANCHED), direction=direction)
    assert re.findall(r"^\t(s1:\S+ -> e\d)", dot, re.MULTILINE) == ends


@pytest.mark.parametrize(("direction", "ports"), [("TB", ["p0", "p1", "p2"]), ("LR", ["p2", "p1", "p0"])])
def test_the_places_for_arrows_are_cells_below_or_beside_the_name(direction, ports):
    dot = to_dot(picture(BRANCHED), direction=direction)
    assert re.findall(r'port="(\w+)"', dot) == ports


def test_a_final_state_has_a_double_border_and_others_have_not():
    states = statements(to_dot(picture(FLAT)), "state")
    assert ["peripheries=2" in line for line in states] == [False, False, True]


def test_the_current_state_is_amber_and_not_double():
    dot = to_dot(picture(FLAT, RUN))
    states = statements(dot, "state")
    assert list(of_states(dot, "fillcolor").values()) == [LIGHT.state, LIGHT.current, LIGHT.final]
    assert ["peripheries=2" in line for line in states] == [False, False, True]


def test_what_a_run_has_not_visited_is_dashed():
    states = statements(to_dot(picture(FLAT, RUN)), "state")
    assert ["dashed" in line for line in states] == [False, False, True]


def test_lines_are_as_wide_as_the_logarithm_of_the_count():
    widths = []
    for count in (1, 10, 1000, 10**9):
        overlay = Overlay("run", "", "", tallies={("new", "INITIALIZE"): Tally(count)}, visited=frozenset())
        line = next(line for line in statements(to_dot(picture(FLAT, overlay)), "main") if "taken" in line)
        widths.append(float(attribute(line, "penwidth")))
    assert widths == [pytest.approx(1.2 + 0.8 * log10(count)) for count in (1, 10, 1000)] + [6.0]


def test_what_was_never_taken_is_dashed():
    dot = to_dot(picture(FLAT, RUN))
    assert ["style=dashed" in line for line in statements(dot, "main")] == [False, False, True, True]


def test_a_rejected_event_is_an_octagon_that_says_which_event_it_was():
    octagon, edge = statements(to_dot(picture(FLAT, RUN)), "rejected")
    assert "shape=octagon" in octagon
    assert "BATCH_END" in octagon
    assert "event 3" in octagon
    assert edge.startswith("\ts1 -> s1r0 ")


def test_a_failed_handler_is_named_and_its_words_are_escaped():
    assert "handler failed: ValueError: &lt;bad&gt;" in to_dot(picture(FLAT, RUN))


def test_a_box_whose_title_the_usual_path_could_cross_has_wider_margins():
    def protocol(box):
        moves = [Transition("a", "batch_start", f"{box}.b"), Transition(f"{box}.b", "batch_end", "c")]
        return Protocol("p", states=["a", f"{box}.b", "c"], transitions=moves, initial="a", final=["c"])

    margins = [re.search(r"margin=(\d+)", to_dot(picture(protocol(box))))[1] for box in ("box", "x" * 10)]
    assert margins == ["12", "50"]


def test_a_hub_is_wider_than_a_state_with_few_arrows():
    widths = of_states(to_dot(picture(protocols.COMPRESSION)), "width")
    assert float(widths["s4"]) == 0.95
    assert float(widths["s6"]) == pytest.approx(0.95 + 3 * 0.4)


LEGEND = {
    "a run begins",
    "a run is complete",
    "group of states",
    "what must hold",
    "what is counted",
    "how often, as the line is wide",
    "how often (as the line is wide), how long its handlers took",
    "never taken, never visited",
    "where the run stands",
    "rejected event, with its position",
    "what it raised",
}


def legend(drawn):
    head = to_dot(drawn).splitlines()[1]
    return {words for words in LEGEND if f">{words}<" in head}


PLAIN = Protocol("plain", states=["a", "b"], transitions=[Transition("a", "initialize", "b")], initial="a", final=["b"])


@pytest.mark.parametrize(("middle", "grouped"), [("box.b", True), ("b", False)])
def test_lines_are_kept_straight_unless_they_are_in_and_out_of_a_box_in_turns(middle, grouped):
    states = ["box.a", middle, "box.c"]
    moves = [Transition("box.a", "batch_start", middle), Transition(middle, "batch_end", "box.c")]
    protocol = Protocol("p", states=states, transitions=moves, initial="box.a", final=["box.c"])
    assert (" group=c0 " in to_dot(picture(protocol))) == grouped


def test_the_legend_of_a_plain_protocol_has_its_marks_only():
    assert legend(picture(PLAIN)) == {"a run begins", "a run is complete"}


def test_the_legend_of_a_protocol_explains_boxes_guards_and_updates():
    assert legend(picture(protocols.TRAINING)) == {
        "a run begins", "a run is complete", "group of states", "what must hold", "what is counted",
    }  # fmt: skip


def test_the_legend_of_a_run_explains_all_that_it_marks():
    assert legend(picture(FLAT, RUN)) == LEGEND - {
        "group of states", "what is counted", "how often, as the line is wide",
    }  # fmt: skip


def test_the_legend_of_a_run_without_times_speaks_of_counts_only():
    all_taken = {("a", "INITIALIZE"): Tally(1)}
    drawn = picture(PLAIN, Overlay("run", "", "b", tallies=all_taken, visited=frozenset("ab")))
    assert legend(drawn) == {
        "a run begins", "a run is complete", "how often, as the line is wide", "where the run stands",
    }  # fmt: skip


def test_the_legend_of_a_run_that_nobody_counted_speaks_of_no_counts():
    assert legend(picture(PLAIN, Overlay("run", "", ""))) == {"a run begins", "a run is complete"}


def test_the_legend_of_a_run_that_took_nothing_speaks_of_no_counts():
    assert legend(picture(PLAIN, Overlay("run", "", "", tallies={}, visited=frozenset()))) == {
        "a run begins", "a run is complete", "never taken, never visited",
    }  # fmt: skip


DRAW_ALL = """
from lifecycle import protocols
from lifecycle.diagram import picture, to_dot, to_mermaid
for protocol in protocols.BUILT_IN.values():
    print(to_dot(picture(protocol)), to_mermaid(picture(protocol)))
"""


def test_the_text_is_the_same_whatever_the_hash_seed():
    def drawn(seed):
        command = [sys.executable, "-c", DRAW_ALL]
        return subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout

    assert drawn("1") == drawn("2")


@given(generated())
def test_no_name_stands_in_the_text_but_as_a_label(protocol):
    keys = set(re.findall(r'^\t+("?[^\s"\[]+)', to_dot(picture(protocol)), re.MULTILINE))
    ours = r"s\d+(:(p\d+:)?[swe])?|e\d+|start|graph|node|edge|subgraph|{|}|label=.*|\w+=.*"
    assert all(re.fullmatch(ours, key) for key in keys)


@given(generated())
def test_every_state_and_event_has_one_node(protocol):
    drawn = picture(protocol)
    dot = to_dot(drawn)
    assert len(statements(dot, "state")) == len(protocol.states)
    assert len(statements(dot, "event")) == len(drawn.arrows)


def test_a_protocol_of_many_states_is_drawn():
    assert len(statements(to_dot(picture(many(200))), "state")) == 200
