"""Which protocols allow more than others, computed from their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lifecycle.protocol import Protocol

__all__ = ["includes", "smallest"]


def includes(large: Protocol, small: Protocol) -> bool:
    """Whether every run of one protocol is a run of another.

    In a protocol an end can be reached from every state, so it is enough that no event is legal in the small one and
    not in the large one, wherever both can be after the same events.

    Examples:
        >>> from lifecycle import protocols
        >>> includes(protocols.UPSTREAM, protocols.TRAINING), includes(protocols.TRAINING, protocols.UPSTREAM)
        (True, False)
    """
    pairs = {(small.initial, large.initial)}
    ahead = list(pairs)
    while ahead:
        state, other = ahead.pop()
        if state in small.final and other not in large.final:
            return False
        for event in small.allowed(state):
            if event not in large.allowed(other):
                return False
            pair = (str(small.target(state, event)), str(large.target(other, event)))
            if pair not in pairs:
                pairs.add(pair)
                ahead.append(pair)
    return True


def smallest(protocols: Iterable[Protocol]) -> list[Protocol]:
    """The protocols that include no other one of them but their equals.

    Examples:
        >>> from lifecycle.protocols import BUILT_IN
        >>> [protocol.name for protocol in smallest(BUILT_IN.values())]
        ['data_free', 'sequential', 'training']
    """
    every = list(protocols)
    return [one for one in every if not any(includes(one, other) and not includes(other, one) for other in every)]
