"""The languages and the counting rules, written a second time and in another way; imports nothing from `lifecycle`.

The languages are regular expressions over one letter per event, taken apart by derivatives: what may follow a word is
the derivative of the expression by that word, so a word is a legal prefix when its derivative is not the empty set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

LETTERS = "ICBLPOESKF"
EVENTS = {
    "I": "initialize",
    "C": "calibration_epoch_start",
    "B": "batch_start",
    "L": "loss_calculated",
    "P": "optim_pre_step",
    "O": "optim_post_step",
    "E": "batch_end",
    "S": "sequential_epoch_end",
    "K": "calibration_epoch_end",
    "F": "finalize",
}

# From section 3 of the design. A letter is an event, a small letter is short for an expression.
SHORTHAND = {"c": "B (E | L E)", "b": "c | B L P O E", "t": "B L (E | P O E)"}
LANGUAGES = {
    "compression": "I (C (b | S)* K | t)* F",
    "data_free": "I (C S? K)* F",
    "basic": "I (C c* S? K)* F",
    "sequential": "I (C (c* S)+ K)* F",
    "training": "I t* F",
    "training_microbatched": "I (B L+ (P O)? E)* F",
}
NAMES = (*LANGUAGES, "upstream")
STEPPING = ("compression", "training", "training_microbatched", "upstream")
VARIANTS = [*((name, False) for name in NAMES), *((name, True) for name in STEPPING)]
"""Every protocol, and every protocol with optimizer events in the form in which `P O` may repeat."""


@dataclass(frozen=True)
class Letter:
    letter: str


@dataclass(frozen=True)
class Cat:
    first: Expression
    rest: Expression


@dataclass(frozen=True)
class Alt:
    options: frozenset[Expression]


@dataclass(frozen=True)
class Star:
    body: Expression


Expression = Letter | Cat | Alt | Star
NOTHING = Alt(frozenset())
EMPTY_WORD = Star(NOTHING)


def cat(first: Expression, rest: Expression) -> Expression:
    if NOTHING in (first, rest):
        return NOTHING
    if first == EMPTY_WORD:
        return rest
    if rest == EMPTY_WORD:
        return first
    # Leaning to the right always, so that equal derivatives are equal objects and their number stays finite.
    return Cat(first.first, cat(first.rest, rest)) if isinstance(first, Cat) else Cat(first, rest)


def alt(*options: Expression) -> Expression:
    flat = frozenset(leaf for option in options for leaf in (option.options if isinstance(option, Alt) else (option,)))
    return next(iter(flat)) if len(flat) == 1 else Alt(flat)


def star(body: Expression) -> Expression:
    return body if isinstance(body, Star) else Star(body)


def spelled_out(text: str) -> str:
    """The expression without the letters of `SHORTHAND`."""
    while found := re.search("[a-z]", text):
        text = text.replace(found[0], f"({SHORTHAND[found[0]]})")
    return text


def parse(text: str) -> Expression:
    """Read letters, `|`, `*`, `+`, `?` and parentheses."""
    return _alternatives([*spelled_out(text).replace(" ", "")])


def _alternatives(tokens: list[str]) -> Expression:
    found = _sequence(tokens)
    while tokens and tokens[0] == "|":
        tokens.pop(0)
        found = alt(found, _sequence(tokens))
    return found


def _sequence(tokens: list[str]) -> Expression:
    found: Expression = EMPTY_WORD
    while tokens and tokens[0] not in "|)":
        found = cat(found, _factor(tokens))
    return found


def _factor(tokens: list[str]) -> Expression:
    first = tokens.pop(0)
    if first == "(":
        found = _alternatives(tokens)
        assert tokens.pop(0) == ")"
    else:
        assert first in LETTERS, first
        found = Letter(first)
    while tokens and tokens[0] in "*+?":
        mark = tokens.pop(0)
        found = {"*": star(found), "+": cat(found, star(found)), "?": alt(found, EMPTY_WORD)}[mark]
    return found


@cache
def has_empty_word(expression: Expression) -> bool:
    if isinstance(expression, Cat):
        return has_empty_word(expression.first) and has_empty_word(expression.rest)
    if isinstance(expression, Alt):
        return any(map(has_empty_word, expression.options))
    return isinstance(expression, Star)


@cache
def derivative(expression: Expression, letter: str) -> Expression:
    """What may follow `letter` in the words of `expression` that begin with it."""
    if isinstance(expression, Letter):
        return EMPTY_WORD if expression.letter == letter else NOTHING
    if isinstance(expression, Alt):
        return alt(NOTHING, *(derivative(option, letter) for option in expression.options))
    if isinstance(expression, Star):
        return cat(derivative(expression.body, letter), expression)
    head = cat(derivative(expression.first, letter), expression.rest)
    return alt(head, derivative(expression.rest, letter)) if has_empty_word(expression.first) else head


class Grammar:
    """One language by its derivatives; a state is what may still follow, None after an illegal letter."""

    def __init__(self, text: str) -> None:
        self.start: object = parse(text)

    def step(self, state: object, letter: str) -> object:
        after = derivative(state, letter)
        return None if after == NOTHING else after

    def complete(self, state: object) -> bool:
        return has_empty_word(state)


class Upstream:
    """The order check of llm-compressor, told as a procedure; a state is "new", the last batch event, or "over"."""

    start = "new"
    order = "BLPOE"

    def __init__(self, *, repeat: bool) -> None:
        self.repeat = repeat

    def step(self, state: object, letter: str) -> object:
        assert isinstance(state, str)
        if state == "over":
            return None
        if state == "new":
            return "E" if letter == "I" else None
        if letter in "ICSK":
            return state
        if letter == "F":
            return "over"
        if letter == "B":
            return None if state == "B" else "B"
        # From E everything in its order is behind, but E itself; so "not earlier than last" is the whole rule.
        legal = self.order.index(letter) >= self.order.index(state) or (self.repeat and (state, letter) == ("O", "P"))
        return letter if legal else None

    def complete(self, state: object) -> bool:
        return state == "over"


Acceptor = Grammar | Upstream


@cache
def acceptor(name: str, *, repeat: bool = False) -> Acceptor:
    """The acceptor of a protocol, or of the one derived from it in which `P O` may repeat."""
    if name == "upstream":
        return Upstream(repeat=repeat)
    text = spelled_out(LANGUAGES[name])
    return Grammar(text.replace("P O", "(P O)+") if repeat else text)


def run(machine: Acceptor, word: str) -> object:
    """The state after `word`, None when it is not a legal prefix."""
    state = machine.start
    for letter in word:
        state = machine.step(state, letter)
        if state is None:
            return None
    return state


def is_legal(machine: Acceptor, word: str) -> bool:
    return run(machine, word) is not None


def accepts(machine: Acceptor, word: str) -> bool:
    state = run(machine, word)
    return state is not None and machine.complete(state)


def follow(machine: Acceptor, state: object) -> str:
    """The letters that are legal in `state`."""
    return "".join(letter for letter in LETTERS if machine.step(state, letter) is not None)


def words(machine: Acceptor, longest: int, letters: str = LETTERS, start: str = "") -> Iterator[str]:
    """Every legal word of `letters` after `start`, shortest first, with at most `longest` letters more than it."""
    layer = [(start, run(machine, start))]
    for _ in range(longest):
        yield from (word for word, _ in layer)
        layer = [
            (word + letter, after)
            for word, state in layer
            for letter in letters
            if (after := machine.step(state, letter)) is not None
        ]
    yield from (word for word, _ in layer)


def counted(
    word: str, skipped: Collection[int] = (), *, invocations_per_step: int = 1, batches_per_step: int | None = None
) -> dict[str, object]:
    """Every counter after the accepted events `word`, where the OPTIM_POST_STEP at the positions `skipped` was skipped.

    Each counter looks back over the whole word; nothing is carried from one event to the next.
    """
    invocations = [at for at in positions(word, "O") if at not in skipped]
    optimizer_steps = invocations[invocations_per_step - 1 :: invocations_per_step]
    batch_steps = steps_of_batches(word, optimizer_steps, batches_per_step or 1)
    epoch = word.rfind("C")
    restart = max([epoch, *optimizer_steps, *batch_steps])
    return {
        "global_batch": word.count("E"),
        "global_step": len(optimizer_steps) + len(batch_steps),
        "accepted": len(word),
        "calibration_epochs": word.count("K"),
        "sequential_epochs": word[epoch + 1 :].count("S"),
        "total_sequential_epochs": word.count("S"),
        "batches": word[epoch + 1 :].count("E"),
        "batches_without_optimizer": sum(at > restart for at in batches_without_optimizer(word)),
        "invocations": len(invocations) % invocations_per_step,
        "calibrating": is_calibrating(word),
        "optimizer_called": bool({"O", "P"} & {*word[word.rfind("E") + 1 :]}),
    }


def positions(word: str, letter: str) -> list[int]:
    return [at for at, found in enumerate(word) if found == letter]


def is_calibrating(word: str) -> bool:
    return word.rfind("C") > word.rfind("K")


def batches_without_optimizer(word: str) -> list[int]:
    """Where batches end that had no optimizer event, skipped ones included."""
    ends = positions(word, "E")
    begins = [0, *(end + 1 for end in ends)]
    return [end for begin, end in zip(begins, ends, strict=False) if not {"O", "P"} & {*word[begin:end]}]


def steps_of_batches(word: str, optimizer_steps: list[int], batches_per_step: int) -> list[int]:
    """Where the end of a batch of a calibration epoch makes a step; the batches of one are between two restarts."""
    restarts = [-1, *sorted([*positions(word, "C"), *optimizer_steps]), len(word)]
    batches = [at for at in batches_without_optimizer(word) if is_calibrating(word[:at])]
    return [
        step
        for begin, end in pairwise(restarts)
        for step in [at for at in batches if begin < at < end][batches_per_step - 1 :: batches_per_step]
    ]
