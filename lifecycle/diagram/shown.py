"""How protocols, lifecycles and reports show themselves: in a notebook, and in formatted text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle import protocols
from lifecycle.diagram.errors import RenderError
from lifecycle.diagram.model import picture
from lifecycle.diagram.renderers.dot import to_dot
from lifecycle.diagram.renderers.graphviz import to_svg
from lifecycle.diagram.renderers.mermaid import to_mermaid
from lifecycle.diagram.renderers.table import to_table
from lifecycle.diagram.runs import overlay_of_lifecycle, overlay_of_report
from lifecycle.engine import Lifecycle
from lifecycle.protocol import Protocol

if TYPE_CHECKING:
    from lifecycle.diagram.overlay import Overlay
    from lifecycle.trace.report import Report

__all__ = ["formatted", "mimebundle"]

FORMATS = ("mermaid", "dot", "table")


def mimebundle(shown: Protocol | Lifecycle | Report) -> dict[str, str]:
    """What a notebook needs to show a value: as text, as Mermaid, and as SVG if there is a program that draws.

    A report whose protocol is not built in is shown as text only, since it has just the name of it.

    Examples:
        >>> from lifecycle import protocols
        >>> mimebundle(protocols.TRAINING)["text/plain"]
        "<Protocol 'training': 7 states, 8 transitions>"
    """
    bundle = {"text/plain": repr(shown) if isinstance(shown, (Protocol, Lifecycle)) else str(shown)}
    protocol, overlay = _parts(shown)
    if protocol is None:
        return bundle
    drawn = picture(protocol, overlay)
    bundle["text/vnd.mermaid"] = to_mermaid(drawn)
    try:
        bundle["image/svg+xml"] = to_svg(drawn)
    except RenderError:
        # The others need no program, and a notebook must not fail for want of one.
        return bundle
    return bundle


def formatted(shown: Protocol | Lifecycle, spec: str) -> str:
    """What ``format(value, spec)`` gives: ``mermaid``, ``dot`` or ``table``; the representation if `spec` is empty.

    Raises:
        ValueError: `spec` is none of these.

    Examples:
        >>> from lifecycle import protocols
        >>> formatted(protocols.TRAINING, "mermaid").splitlines()[0]
        'stateDiagram-v2'
    """
    if not spec:
        return repr(shown)
    if spec not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {spec!r}")
    protocol, overlay = (shown, None) if isinstance(shown, Protocol) else (shown.protocol, overlay_of_lifecycle(shown))
    if spec == "table":
        return to_table(protocol, overlay)
    drawn = picture(protocol, overlay)
    return to_mermaid(drawn) if spec == "mermaid" else to_dot(drawn)


def _parts(shown: Protocol | Lifecycle | Report) -> tuple[Protocol | None, Overlay | None]:
    """The protocol, if it is known, and the run, if there is one."""
    if isinstance(shown, Protocol):
        return shown, None
    if isinstance(shown, Lifecycle):
        return shown.protocol, overlay_of_lifecycle(shown)
    protocol = protocols.find(shown.runs[0].protocol) if shown.runs else None
    return protocol, overlay_of_report(shown, protocol) if protocol else None
