from itertools import pairwise

from drawing import FLAT, RUN, generated, many
from hypothesis import given

from lifecycle import Protocol, Transition, protocols
from lifecycle.diagram import Overlay, picture


def linear(*states, more=(), final=()):
    """A protocol whose states follow each other, with further moves."""
    moves = [Transition(a, "batch_start", b) for a, b in pairwise(states)]
    return Protocol(
        "linear",
        states=dict.fromkeys([*states, *(t.target for t in more)]),
        transitions=[*moves, *more],
        initial=states[0],
        final=[states[-1], *final],
    )


def kinds(protocol):
    """For each source and target, how the arrow runs."""
    drawn = picture(protocol)
    names = {state.key: state.name for state in drawn.states}
    return {(names[arrow.source], names[arrow.target]): arrow.kind for arrow in drawn.arrows}


def test_states_are_in_the_order_of_the_protocol_with_the_last_part_as_label():
    drawn = picture(protocols.TRAINING)
    assert [state.name for state in drawn.states] == list(protocols.TRAINING.states)
    assert [state.label for state in drawn.states] == [
        "created", "ready", "started", "loss", "pending", "taken", "finalized",
    ]  # fmt: skip


def test_boxes_are_nested_as_the_names_are():
    assert [(box.key, box.name, box.parent, box.level) for box in picture(protocols.TRAINING).boxes] == [
        ("b0", "session", "", 1),
        ("b1", "session.batch", "b0", 2),
        ("b2", "session.batch.step", "b1", 3),
    ]


def test_states_know_their_box_and_what_they_are():
    drawn = picture(protocols.TRAINING)
    assert [(state.box, state.initial, state.final) for state in drawn.states] == [
        ("", True, False),
        ("b0", False, False),
        ("b1", False, False),
        ("b1", False, False),
        ("b2", False, False),
        ("b2", False, False),
        ("", False, True),
    ]


def test_the_longest_way_is_the_usual_path_and_what_returns_goes_back():
    assert kinds(protocols.TRAINING) == {
        ("created", "session.ready"): "main",
        ("session.ready", "session.batch.started"): "main",
        ("session.batch.started", "session.batch.loss"): "main",
        ("session.batch.loss", "session.batch.step.pending"): "main",
        ("session.batch.step.pending", "session.batch.step.taken"): "main",
        ("session.batch.step.taken", "session.ready"): "back",
        ("session.batch.loss", "session.ready"): "back",
        ("session.ready", "finalized"): "back",
    }


def test_an_arrow_to_the_same_state_is_a_loop():
    assert kinds(FLAT)["open", "open"] == "loop"


def test_a_final_state_on_the_usual_path_ends_it():
    assert kinds(FLAT)["open", "done"] == "main"


def test_a_final_state_beside_the_usual_path_is_above_all_from_which_it_is_reached():
    failed = [Transition(state, "loss_calculated", "failed") for state in ("b", "c")]
    found = kinds(linear("a", "b", "c", "d", more=failed, final=["failed"]))
    assert (found["b", "failed"], found["c", "failed"]) == ("back", "back")


def test_a_final_state_that_is_reached_from_the_first_state_is_below_it():
    found = kinds(linear("a", "b", "c", more=[Transition("a", "loss_calculated", "failed")], final=["failed"]))
    assert found["a", "failed"] == "side"


def test_an_arrow_that_joins_another_branch_does_not_go_back():
    joins = [Transition("a", "loss_calculated", "x"), Transition("x", "batch_end", "b")]
    assert kinds(linear("a", "b", "c", more=joins))["x", "b"] == "side"


def test_states_on_one_line_have_one_number():
    branch = [Transition("a", "loss_calculated", "x"), Transition("x", "batch_end", "a")]
    drawn = picture(linear("a", "b", "c", more=branch))
    assert {state.name: state.chain for state in drawn.states} == {"a": 0, "b": 0, "c": 0, "x": 1}


def test_a_side_branch_that_begins_with_an_event_of_the_usual_path_passes_by_what_comes_before_it():
    drawn = picture(protocols.COMPRESSION)
    side = [arrow for arrow in drawn.arrows if arrow.kind == "side"]
    assert [(arrow.moves[0].event, arrow.span) for arrow in side] == [("BATCH_START", 1)]


def test_a_side_branch_whose_event_is_not_on_the_usual_path_passes_by_nothing():
    branch = [Transition("a", "loss_calculated", "x"), Transition("x", "batch_end", "a")]
    drawn = picture(linear("a", "b", "c", more=branch))
    assert [arrow.span for arrow in drawn.arrows if arrow.kind == "side"] == [0]


def test_a_path_that_comes_back_to_a_box_that_it_has_left_is_tangled():
    assert picture(linear("box.a", "b", "box.c")).tangled
    assert not picture(linear("a", "box.b", "box.inner.c", "box.d", "e")).tangled


def lanes(protocol):
    """The place of each arrow that has one, from left to right."""
    drawn = picture(protocol)
    names = {state.key: state.label for state in drawn.states}
    placed = [arrow for arrow in drawn.arrows if arrow.lane is not None]
    return {names[arrow.source] + names[arrow.target]: arrow.lane for arrow in sorted(placed, key=lambda a: a.lane)}


def test_a_branch_that_comes_back_is_left_of_the_usual_path_and_inside_its_ways_back():
    branched = linear(
        *"abcde",
        more=[
            Transition("b", "initialize", "x"),
            Transition("x", "batch_end", "b"),
            Transition("x", "batch_start", "y"),
            Transition("y", "batch_end", "b"),
            Transition("d", "batch_end", "b"),
            Transition("c", "batch_end", "b"),
        ],
    )
    assert lanes(branched) == {"yb": -3, "xb": -2, "bx": -1, "bc": 0, "cb": 1, "db": 2}


def test_what_leaves_and_does_not_come_back_is_right_of_the_usual_path():
    shortcut = linear(
        *"abcde",
        more=[
            Transition("b", "initialize", "d"),
            Transition("d", "batch_end", "b"),
            Transition("c", "batch_end", "b"),
        ],
    )
    assert lanes(shortcut) == {"db": -2, "cb": -1, "bc": 0, "bd": 1}


def test_arrows_have_no_places_where_none_leaves_beside_the_usual_path():
    assert lanes(protocols.TRAINING) == {}


@given(generated())
def test_no_two_arrows_of_a_state_have_the_same_place(protocol):
    places = [(arrow.upper, arrow.lane) for arrow in picture(protocol).arrows if arrow.lane is not None]
    assert len(set(places)) == len(places)


def test_events_between_the_same_states_share_an_arrow():
    drawn = picture(linear("a", "b", more=[Transition("a", "loss_calculated", "b")]))
    assert [[move.event for move in arrow.moves] for arrow in drawn.arrows] == [["BATCH_START", "LOSS_CALCULATED"]]


def test_an_arrow_is_in_the_innermost_box_around_both_its_ends():
    drawn = picture(protocols.TRAINING)
    assert [arrow.box for arrow in drawn.arrows] == ["", "b0", "b1", "b1", "b2", "b0", "b0", ""]


def test_guards_and_updates_are_words_and_bookkeeping_is_left_out():
    moves = [move for arrow in picture(protocols.TRAINING).arrows for move in arrow.moves]
    assert [(move.event, move.guard, move.update) for move in moves] == [
        ("INITIALIZE", "", ""),
        ("BATCH_START", "", ""),
        ("LOSS_CALCULATED", "loss given", ""),
        ("OPTIM_PRE_STEP", "", ""),
        ("OPTIM_POST_STEP", "", "global_step += 1"),
        ("BATCH_END", "", "global_batch += 1"),
        ("BATCH_END", "", "global_batch += 1"),
        ("FINALIZE", "counts as expected", ""),
    ]


def test_a_box_that_an_arrow_leaves_downwards_knows_it():
    drawn = picture(linear("a", "box.b", "c"))
    assert [box.left_below for box in drawn.boxes] == [True]


def test_a_box_that_arrows_only_enter_from_above_knows_it():
    assert [box.left_below for box in picture(protocols.TRAINING).boxes] == [False, False, False]


def test_title_and_subtitle_name_the_protocol():
    drawn = picture(protocols.TRAINING)
    assert drawn.title == "training lifecycle"
    assert drawn.subtitles == ("protocol training: I t* F: compression-aware training",)


def test_without_a_description_the_subtitle_says_how_large_the_protocol_is():
    assert picture(FLAT).subtitles == ("protocol flat: 3 states, 3 transitions",)


def test_a_run_is_named_below_the_protocol_with_its_coverage():
    assert picture(FLAT, RUN).subtitles[1:] == (
        "run.jsonl: 5 events, 1 violation, incomplete in open",
        "coverage: 2 of 3 states, 2 of 3 transitions",
    )


def test_a_run_that_nobody_counted_has_no_coverage():
    drawn = picture(FLAT, Overlay("live run", "open", current="open"))
    assert drawn.subtitles[1:] == ("live run: open",)
    assert all(state.visited for state in drawn.states)
    assert all(move.tally is None for arrow in drawn.arrows for move in arrow.moves)


def test_a_run_marks_the_states_that_it_stands_in_and_has_not_been_in():
    drawn = picture(FLAT, RUN)
    assert [(state.name, state.current, state.visited) for state in drawn.states] == [
        ("new", False, True),
        ("open", True, True),
        ("done", False, False),
    ]


def test_a_run_puts_counts_and_failures_on_the_moves():
    moves = [move for arrow in picture(FLAT, RUN).arrows for move in arrow.moves]
    assert [(move.event, str(move.tally), move.failure) for move in moves] == [
        ("INITIALIZE", "1x 500 ms", ""),
        ("BATCH_START", "4x 2 s, 500 ms each", "ValueError: <bad>"),
        ("FINALIZE", "never", ""),
    ]


def test_rejections_belong_to_their_state():
    drawn = picture(FLAT, RUN)
    assert [list(drawn.rejections(state)) for state in drawn.states] == [[], ["s1r0"], []]


def test_without_a_run_nothing_is_rejected():
    assert picture(FLAT).rejections(picture(FLAT).states[0]) == {}


@given(generated())
def test_every_state_and_every_transition_is_in_the_picture_once(protocol):
    drawn = picture(protocol)
    names = {state.key: state.name for state in drawn.states}
    assert [state.name for state in drawn.states] == list(protocol.states)
    moves = [(names[arrow.source], move.event, names[arrow.target]) for arrow in drawn.arrows for move in arrow.moves]
    assert sorted(moves) == sorted((t.source, t.event.name, t.target) for t in protocol.transitions)


@given(generated())
def test_every_arrow_that_goes_back_could_be_turned_and_leave_no_circle(protocol):
    following = {state: set() for state in protocol.states}
    for (source, target), kind in kinds(protocol).items():
        if kind in ("main", "side"):
            following[source].add(target)
        elif kind == "back":
            following[target].add(source)
    while following:
        ends = [state for state, after in following.items() if not after & following.keys()]
        assert ends
        for state in ends:
            del following[state]


@given(generated())
def test_the_states_of_a_chain_follow_each_other_on_the_usual_path(protocol):
    drawn = picture(protocol)
    into = {arrow.target: arrow.source for arrow in drawn.arrows if arrow.kind == "main"}
    chains = {state.key: state.chain for state in drawn.states}
    for key, source in into.items():
        assert chains[key] == chains[source]
    assert len(into) == len(drawn.states) - len(set(chains.values()))


def test_a_protocol_of_many_states_is_no_burden():
    drawn = picture(many(2000))
    assert len(drawn.states) == 2000
