"""Pictures of protocols, and of runs on top of them."""

from lifecycle.diagram.errors import RenderError
from lifecycle.diagram.model import Picture, picture
from lifecycle.diagram.overlay import Overlay, Rejection, Tally
from lifecycle.diagram.renderers.dot import to_dot
from lifecycle.diagram.renderers.graphviz import draw, find_program, to_svg
from lifecycle.diagram.renderers.mermaid import to_mermaid
from lifecycle.diagram.renderers.svg import to_text
from lifecycle.diagram.renderers.table import to_table
from lifecycle.diagram.runs import Watch, overlay_of_lifecycle, overlay_of_report, overlay_of_trace

__all__ = [
    "Overlay",
    "Picture",
    "Rejection",
    "RenderError",
    "Tally",
    "Watch",
    "draw",
    "find_program",
    "overlay_of_lifecycle",
    "overlay_of_report",
    "overlay_of_trace",
    "picture",
    "to_dot",
    "to_mermaid",
    "to_svg",
    "to_table",
    "to_text",
]
