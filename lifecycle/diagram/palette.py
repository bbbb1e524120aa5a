"""The colours of the pictures, for light and for dark surroundings.

A renderer draws in one of the two. Since no two parts share a colour, a style sheet can turn a finished light picture
into a dark one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DARK", "LIGHT", "PALETTES", "Palette", "Theme"]

Theme = Literal["auto", "light", "dark"]
"""``auto`` follows the reader's setting where the format can, and is light where it cannot."""


@dataclass(frozen=True, slots=True)
class Palette:
    """One colour, as ``#rrggbb``, for each part of a picture."""

    paper: str
    ink: str
    muted: str
    line: str
    never: str
    state: str
    state_edge: str
    box_1: str
    box_1_edge: str
    box_2: str
    box_2_edge: str
    box_3: str
    box_3_edge: str
    box_4: str
    box_4_edge: str
    final: str
    final_edge: str
    current: str
    current_edge: str
    count: str
    taken: str
    rejected: str
    rejected_edge: str

    def box(self, level: int) -> tuple[str, str]:
        """Fill and edge of a box; the tints repeat after the fourth level."""
        return (
            (self.box_1, self.box_1_edge),
            (self.box_2, self.box_2_edge),
            (self.box_3, self.box_3_edge),
            (self.box_4, self.box_4_edge),
        )[(level - 1) % 4]

    def pairs(self, other: Palette) -> Iterator[tuple[str, str]]:
        """Each colour with that of the same part in another palette."""
        for field in fields(self):
            yield getattr(self, field.name), getattr(other, field.name)


LIGHT = Palette(
    paper="#ffffff",
    ink="#0f172a",
    muted="#4b5a70",
    line="#64748b",
    never="#9aa8bb",
    state="#fefefe",
    state_edge="#334155",
    box_1="#f6f8fb",
    box_1_edge="#a3b1c4",
    box_2="#ebf3ff",
    box_2_edge="#8dbbf5",
    box_3="#f8f4ff",
    box_3_edge="#c9a7f3",
    box_4="#fff6ec",
    box_4_edge="#eebd85",
    final="#dcfce7",
    final_edge="#15803d",
    current="#fde68a",
    current_edge="#b45309",
    count="#b93a0a",
    taken="#ea6a1f",
    rejected="#fee2e2",
    rejected_edge="#b91c1c",
)
"""Dark on white."""

DARK = Palette(
    paper="#0d1320",
    ink="#eef2f8",
    muted="#b3c0d2",
    line="#8b9bb2",
    never="#5d6b81",
    state="#263248",
    state_edge="#a9b7ca",
    box_1="#131b2b",
    box_1_edge="#46556d",
    box_2="#142443",
    box_2_edge="#3b6cab",
    box_3="#271f45",
    box_3_edge="#7a5bb8",
    box_4="#33261a",
    box_4_edge="#9a6c35",
    final="#123c26",
    final_edge="#4ade80",
    current="#7a4a08",
    current_edge="#fbbf24",
    count="#ffad75",
    taken="#f5853f",
    rejected="#5b1a1d",
    rejected_edge="#f98b8b",
)
"""Light on almost black."""

PALETTES: dict[Theme, Palette] = {"auto": LIGHT, "light": LIGHT, "dark": DARK}
"""The palette that a picture is drawn with before any style sheet applies."""
