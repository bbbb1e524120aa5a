"""A session that is saved and resumed, and what is wrong with what is saved."""

from __future__ import annotations

import copy
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recording import HOOKS, Recorder, fire

from lifecycle import IllegalEventError, Lifecycle, LifecycleError, ReentrantEventError, trace
from lifecycle.session import CompressionSession, Modifier, State

OPTIONS = {"steps_per_epoch": 2, "batches_per_step": 2, "invocations_per_step": 1}
WORD = "ICBLEBLEBLEBEKBLPOEB"
REST = "LPOEF"


def session_of(*fails, word="", **options):
    """A session of two modifiers, of which the second may fail."""
    modifiers = [Recorder("a", end=1, update=0.5), Recorder("b", fails=dict(fails))]
    session = CompressionSession(modifiers, "compression", **{**OPTIONS, **options})
    fire(session, word)
    return session


def saved_run(word=WORD):
    return json.loads(json.dumps(session_of(word=word).state_dict()))


def calls(session):
    return [modifier.calls for modifier in session.modifiers]


# What is saved and restored


def test_what_is_saved_is_plain_data():
    session = session_of(word=WORD)
    saved = session.state_dict()
    assert saved == {
        "lifecycle": session.lifecycle.state_dict(),
        "modifiers": [
            {
                "modifier": "Recorder",
                "initialized": True,
                "started": True,
                "ended": True,
                "updated": 1,
                "state": {"count": session.modifiers[0].count},
            },
            {
                "modifier": "Recorder",
                "initialized": True,
                "started": True,
                "ended": False,
                "updated": 3,
                "state": {"count": session.modifiers[1].count},
            },
        ],
    }
    assert json.loads(json.dumps(saved)) == saved


def test_a_new_session_saves_that_nothing_was_called():
    saved = CompressionSession([Modifier()]).state_dict()
    assert saved["modifiers"] == [
        {"modifier": "Modifier", "initialized": False, "started": False, "ended": False, "updated": None, "state": {}}
    ]


def test_a_modifier_gets_its_state_and_then_the_model_with_the_counters_of_the_run():
    session = session_of()
    event = session.resume(saved_run(), model="a model", teacher="another")
    payload = {"model": "a model", "teacher": "another"}
    assert event is session.lifecycle.event
    assert [modifier.details for modifier in session.modifiers] == [
        [("load_state_dict", saved["state"]), ("on_initialize", 3, 5, payload)] for saved in saved_run()["modifiers"]
    ]
    assert session.state == State(**payload)


def test_a_resumed_session_saves_what_it_was_resumed_from():
    class Keeps(Modifier):
        def state_dict(self):
            return {"scale": [1.0]}

    session = CompressionSession([Keeps()], "training")
    fire(session, "IBLPOEB")
    saved = session.state_dict()
    resumed = CompressionSession([Keeps()], "training")
    resumed.resume(saved)
    assert resumed.state_dict() == saved


def test_a_resumed_run_goes_on_as_the_whole_run_does():
    whole, resumed = session_of(word=WORD + REST), session_of()
    resumed.resume(saved_run())
    fire(resumed, REST)
    assert resumed.state_dict()["lifecycle"] == whole.state_dict()["lifecycle"]
    assert resumed.modifiers[1].calls[2:] == whole.modifiers[1].calls[-len(resumed.modifiers[1].calls) + 2 :]


def test_the_journal_of_a_resumed_run_begins_with_its_loading_and_conforms():
    session = session_of()
    file = io.BytesIO()
    with trace.Journal(file) as journal:
        session.lifecycle.attach(journal)
        session.resume(saved_run())
        fire(session, REST)
    file.seek(0)
    assert [record.control for record in trace.read(file)][:3] == [None, "load", None]
    file.seek(0)
    assert trace.check(file).ok


def test_no_event_is_fired():
    session = session_of()
    seen = []
    session.lifecycle.on(session.lifecycle.protocol.events, lambda event, payload: seen.append(event.type_))
    session.resume(saved_run())
    assert seen == []


def test_a_run_that_had_not_begun_begins_with_initialize():
    session = session_of()
    session.resume(saved_run(""), model="a model")
    assert calls(session) == [["a.load_state_dict"], ["b.load_state_dict"]]
    session.initialize()
    assert calls(session) == [["a.load_state_dict", "a.on_initialize"], ["b.load_state_dict", "b.on_initialize"]]
    assert session.state.model == "a model"


def test_a_run_that_was_finalized_stays_so():
    session = session_of()
    session.resume(saved_run("IF"))
    assert calls(session) == [["a.load_state_dict"], ["b.load_state_dict"]]
    assert session.reset() == "finalized"


def test_a_run_that_was_aborted_stays_so():
    first = session_of(word="I")
    first.abort("why")
    session = session_of()
    session.resume(first.state_dict())
    assert calls(session) == [["a.load_state_dict"], ["b.load_state_dict"]]
    with pytest.raises(IllegalEventError, match="the run was aborted"):
        session.finalize()


def test_under_upstream_a_second_initialize_initializes_nobody_after_a_resume():
    first, second = (CompressionSession([Recorder()], "upstream") for _ in range(2))
    fire(first, "IB")
    second.resume(first.state_dict())
    second.initialize()
    assert second.modifiers[0].calls == ["m.load_state_dict", "m.on_initialize"]


def test_a_modifier_that_cannot_save_before_it_is_initialized_can_be_resumed():
    class Late(Modifier):
        def on_initialize(self, state, event, **payload):
            self.masks = state.model

        def state_dict(self):
            return {"masks": self.masks}

    first, second = (CompressionSession([Late()], "training") for _ in range(2))
    first.initialize(model="a model")
    second.resume(first.state_dict(), model="a model")
    assert second.state_dict() == first.state_dict()


def test_a_resumed_session_finalizes_at_the_end_of_its_block():
    with session_of() as session:
        session.resume(saved_run("I"))
    assert calls(session)[0] == ["a.load_state_dict", "a.on_initialize", "a.on_finalize"]


def test_after_a_reset_a_session_can_be_resumed():
    session = session_of(word="IC")
    session.reset()
    session.resume(saved_run())
    assert session.lifecycle.event.global_batch == 5


# When it cannot be


@pytest.mark.parametrize(("word", "status"), [("I", "open"), ("IF", "finalized"), ("IC", "open")])
def test_a_session_whose_run_has_begun_is_not_resumed(word, status):
    session = session_of(word=word)
    told, state = copy.deepcopy(calls(session)), session.state
    with pytest.raises(LifecycleError) as caught:
        session.resume(saved_run(), model="a model")
    assert str(caught.value) == f"resume() needs a new run, and this one is {status}; reset() it first"
    assert (calls(session), session.state) == (told, state)


def test_a_hook_may_not_resume():
    refused = []

    class Resumes(Modifier):
        def on_initialize(self, state, event, **payload):
            with pytest.raises(LifecycleError, match="this one is open"):
                session.resume(saved)
            refused.append(event.type_)

    session = CompressionSession([Resumes()], "training")
    saved = session.state_dict()
    session.initialize()
    assert refused == ["initialize"]


@pytest.mark.parametrize("act", [lambda session: session.finalize(), lambda session: session.reset()])
@pytest.mark.parametrize("hook", ["on_initialize", "load_state_dict"])
def test_a_hook_of_a_session_that_is_resumed_may_not_fire_or_reset(hook, act):
    class Fires(Recorder):
        def called(self, name, *detail):
            super().called(name, *detail)
            if name == hook and session.lifecycle.event.global_batch:
                with pytest.raises(ReentrantEventError, match=r"by an observer of resume\(\)"):
                    act(session)

    first, session = (CompressionSession([Fires()], "training") for _ in range(2))
    fire(first, "IBLPOE")
    session.resume(first.state_dict())
    assert session.modifiers[0].calls == ["m.load_state_dict", "m.on_initialize"]
    assert session.lifecycle.status == "open"
    session.finalize()


@pytest.mark.parametrize("name", ["state", "event"])
def test_a_payload_may_not_have_the_name_of_an_argument(name):
    session = session_of()
    with pytest.raises(LifecycleError, match=r"^a payload may not be called 'self', 'state' or 'event'"):
        session.resume(saved_run(), **{name: 1})
    assert (calls(session), session.lifecycle.status) == ([[], []], "created")


@pytest.mark.parametrize("hook", ["on_initialize", "load_state_dict"])
@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt()])
def test_a_modifier_that_raises_aborts_the_resumed_run(hook, error):
    session = session_of((hook, error))
    with pytest.raises(type(error)) as caught:
        session.resume(saved_run(), model="a model")
    assert caught.value is error
    assert calls(session) == [
        ["a.load_state_dict", "a.on_initialize", "a.on_abort"],
        ["b.load_state_dict", *(["b.on_initialize"] if hook == "on_initialize" else []), "b.on_abort"],
    ]
    assert session.modifiers[0].details[-1] == ("on_abort", 3, 5, error)
    assert session.lifecycle.status == "aborted"


@pytest.mark.parametrize("hook", ["on_initialize", "load_state_dict"])
def test_after_a_resume_that_failed_the_session_can_be_reset_and_resumed(hook):
    session = session_of((hook, RuntimeError()))
    with pytest.raises(RuntimeError):
        session.resume(saved_run())
    session.modifiers[1].fails = {}
    assert session.reset() == "aborted"
    session.resume(saved_run())
    fire(session, REST)
    assert session.lifecycle.status == "finalized"


# What is wrong with what is saved


def nodes(value, path=()):
    """The path of everything in the saved run, but for what the modifiers' own states hold."""
    yield path
    if path[-1:] == ("state",) and path[0] == "modifiers":
        return
    if isinstance(value, dict):
        for key in value:
            yield from nodes(value[key], (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from nodes(each, (*path, index))


SAVED = saved_run()
PATHS = [path for path in nodes(SAVED) if path]
BAD = [None, True, -1, 0.5, "no such thing", [], {}, [1], {"a": 1}, b"a", object]


def may_be(path, old, new):
    """Whether a value is fine there, or is another value that only the modifier or the next event can judge."""
    name = path[-1]
    if type(new) is type(old) and new == old:
        return True
    if name in {"type_", "updated"} and new is None:
        return True
    if name == "history" and new == []:
        return True
    if isinstance(old, bool):
        return isinstance(new, bool)
    return path[0] == "modifiers" and name == "state" and isinstance(new, dict)


def parent_of(saved, path):
    for key in path[:-1]:
        saved = saved[key]
    return saved


def unchanged(session):
    return (session.state_dict(), calls(session), session.state) == (session_of().state_dict(), [[], []], State())


def assert_refused(saved):
    """That a saved run is refused, that nothing came of it, and that a good one is still taken."""
    session = session_of()
    with pytest.raises((LifecycleError, TypeError)):
        session.resume(saved, model="a model")
    assert unchanged(session)
    session.resume(copy.deepcopy(SAVED), model="a model")
    fire(session, REST)
    assert session.lifecycle.status == "finalized"


@given(path=st.sampled_from(PATHS), bad=st.sampled_from(BAD))
def test_a_part_that_is_wrong_is_refused_and_changes_nothing(path, bad):
    saved = copy.deepcopy(SAVED)
    parent = parent_of(saved, path)
    if not may_be(path, parent[path[-1]], bad):
        parent[path[-1]] = bad
        assert_refused(saved)


@pytest.mark.parametrize("path", [path for path in PATHS if isinstance(path[-1], str)], ids=str)
def test_a_part_that_is_missing_is_refused_and_changes_nothing(path):
    saved = copy.deepcopy(SAVED)
    del parent_of(saved, path)[path[-1]]
    assert_refused(saved)


@pytest.mark.parametrize(
    "find",
    [
        lambda saved: saved,
        lambda saved: saved["lifecycle"],
        lambda saved: saved["lifecycle"]["event"],
        lambda saved: saved["lifecycle"]["progress"],
        lambda saved: saved["modifiers"][1],
    ],
    ids=["session", "lifecycle", "event", "progress", "modifier"],
)
def test_a_part_that_is_unknown_is_refused_and_changes_nothing(find):
    saved = copy.deepcopy(SAVED)
    find(saved)["more"] = 1
    assert_refused(saved)


@pytest.mark.parametrize("saved", [None, [], "state", 1, b"{}"])
def test_what_is_not_a_mapping_is_a_type_error(saved):
    with pytest.raises(TypeError, match=r"^session must be a mapping, got "):
        session_of().resume(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved["modifiers"].pop(), "the saved run has number of modifiers=1, this lifecycle has 2"),
        (
            lambda saved: saved["modifiers"][0].update(modifier="Prune"),
            "the saved run has modifier='Prune', this lifecycle has 'Recorder'",
        ),
        (lambda saved: saved["modifiers"][1].update(updated=-1), "updated must be at least 0, got -1"),
        (
            lambda saved: saved["lifecycle"].update(protocol="training"),
            "the saved run has protocol='training', this lifecycle has 'compression'",
        ),
    ],
)
def test_a_run_of_another_session_is_a_lifecycle_error(change, message):
    saved = copy.deepcopy(SAVED)
    change(saved)
    with pytest.raises(LifecycleError) as caught:
        session_of().resume(saved)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved.update(modifiers=()), "the saved modifiers must be a list, got ()"),
        (lambda saved: saved["modifiers"].__setitem__(0, []), "modifier must be a mapping, got []"),
        (lambda saved: saved["modifiers"][0].update(started=1), "started must be true or false, got 1"),
        (lambda saved: saved["modifiers"][1].update(updated=True), "updated must be an int, got True"),
        (
            lambda saved: saved["modifiers"][1].update(state=None),
            "the saved state of Recorder must be a mapping, got None",
        ),
    ],
)
def test_a_part_of_another_type_is_a_type_error(change, message):
    saved = copy.deepcopy(SAVED)
    change(saved)
    with pytest.raises(TypeError) as caught:
        session_of().resume(saved)
    assert str(caught.value) == message


@pytest.mark.parametrize(("name", "value"), [("steps_per_epoch", 3), ("batches_per_step", None)])
def test_a_run_with_other_sizes_is_refused(name, value):
    session = session_of(**{name: value})
    with pytest.raises(LifecycleError, match=f"^the saved run has {name}=2, this lifecycle has {value}$"):
        session.resume(saved_run())
    assert calls(session) == [[], []]


def test_the_state_of_an_engine_alone_is_not_that_of_a_session():
    with pytest.raises(LifecycleError, match=r"^the saved session lacks lifecycle, modifiers$"):
        CompressionSession().resume(Lifecycle().state_dict())


def test_every_hook_is_known_to_the_recorder():
    assert {name for name in vars(Modifier) if name.startswith("on_")} == {*HOOKS, "on_abort"}
