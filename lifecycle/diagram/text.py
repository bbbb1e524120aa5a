"""Names as text that can be drawn, whatever they contain."""

from __future__ import annotations

import re

__all__ = ["visible"]

# Written out, and not asked of `str`, whose answer differs between versions of Python.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
"""Control characters, halves of characters, and what turns the direction of writing."""


def visible(name: str) -> str:
    r"""A name with what cannot be drawn written as in Python: line breaks, control characters, halves of characters.

    Examples:
        >>> print(visible("two\nlines"))
        two\nlines
    """
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
