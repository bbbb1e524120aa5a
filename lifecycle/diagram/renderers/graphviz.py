"""Drawing: from a picture to the bytes of a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lifecycle.diagram.errors import RenderError
from lifecycle.diagram.renderers import svg
from lifecycle.diagram.renderers.dot import Direction, to_dot
from lifecycle.diagram.renderers.mermaid import to_mermaid

if TYPE_CHECKING:
    from lifecycle.diagram.model import Picture
    from lifecycle.diagram.palette import Theme

__all__ = ["FORMATS", "Format", "draw", "find_program", "to_svg"]

Format = Literal["svg", "png", "pdf", "dot", "mermaid"]
FORMATS: tuple[Format, ...] = get_args(Format)

VARIABLE = "LIFECYCLE_DOT"
"""The environment variable that names the program to draw with."""

PURE = "graphviz-pure"
"""The package whose program draws where Graphviz is not installed; the extra ``render`` brings it."""

INSTALL = 'pip install "compression-lifecycle[render]"'

DOTS_PER_INCH = 144
"""Resolution of a PNG; twice that of a plain screen, so that small letters stay sharp."""

TIME_LIMIT = 600.0
"""Seconds after which a drawing program is given up."""

_SIGNATURES = {"png": (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"), "pdf": (b"%PDF-", b"%%EOF")}
"""How a file of a format begins and ends."""


def find_program() -> str:
    """The program that draws.

    The environment variable ``LIFECYCLE_DOT`` names it; else it is ``dot`` on the path; else the program of the
    package ``graphviz-pure``.

    Raises:
        RenderError: There is none; the message has the command that installs one.

    Examples:
        >>> try:
        ...     program = find_program()
        ... except RenderError as error:
        ...     program = str(error)
        >>> bool(program)
        True
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise RenderError(
                f"{VARIABLE} is {named!r}, which is not a program; name the `dot` of Graphviz, or unset it"
            )
        return found
    found = shutil.which("dot") or _pure()
    if found is None:
        raise RenderError(f"drawing needs Graphviz, and there is none; install it with: {INSTALL}")
    return found


def _pure() -> str | None:
    try:
        files = metadata.files(PURE) or []
    except metadata.PackageNotFoundError:
        return None
    programs = (Path(str(file.locate())).resolve() for file in files if Path(file.name).stem == PURE)
    return next((str(program) for program in programs if program.is_file()), None)


def draw(
    drawn: Picture,
    kind: Format,
    *,
    theme: Theme = "auto",
    direction: Direction = "TB",
) -> bytes:
    """A picture as the content of a file.

    Args:
        drawn: The picture.
        kind: ``"dot"`` and ``"mermaid"`` need no program; ``"svg"`` and ``"png"`` need one that draws, and
            ``"pdf"`` needs Graphviz itself.
        theme: The colours; ``auto`` follows the reader's setting in an SVG, and is light in everything else.
        direction: Which way the usual path runs, top to bottom or left to right.

    Raises:
        RenderError: No program was found, or it failed.
        ValueError: There is no such format.

    Examples:
        >>> from lifecycle import protocols
        >>> from lifecycle.diagram import picture
        >>> draw(picture(protocols.TRAINING), "mermaid").splitlines()[0]
        b'stateDiagram-v2'
    """
    if kind == "mermaid":
        return to_mermaid(drawn, direction=direction).encode()
    if kind == "svg":
        return to_svg(drawn, theme=theme, direction=direction).encode()
    source = to_dot(drawn, theme=theme, direction=direction)
    if kind == "dot":
        return source.encode()
    if kind not in _SIGNATURES:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {kind!r}")
    made = _run(source, kind)
    begin, end = _SIGNATURES[kind]
    if not made.startswith(begin) or not made.rstrip().endswith(end):
        raise RenderError(f"{find_program()} did not write a {kind.upper()}")
    return made


def to_svg(drawn: Picture, *, theme: Theme = "auto", direction: Direction = "TB", dark_within: str = "") -> str:
    """A picture as SVG.

    Args:
        drawn: The picture.
        theme: The colours; ``auto`` follows the reader's setting.
        direction: Which way the usual path runs.
        dark_within: A CSS selector; if given, ``auto`` is dark inside what it selects, whatever the reader's setting.

    Raises:
        RenderError: No program was found, or it failed.

    Examples:
        >>> from lifecycle import protocols
        >>> from lifecycle.diagram import picture
        >>> try:
        ...     page = to_svg(picture(protocols.TRAINING))
        ... except RenderError as error:  # it says what to install
        ...     page = f"<svg><title>{error}</title></svg>"
        >>> page.startswith("<svg")
        True
    """
    source = to_dot(drawn, theme=theme, direction=direction)
    return svg.finish(_run(source, "svg"), drawn, theme, dark_within)


def _run(source: str, kind: str) -> bytes:
    program = find_program()
    command = [program, f"-T{kind}", *([f"-Gdpi={DOTS_PER_INCH}"] if kind == "png" else [])]
    try:
        done = subprocess.run(  # noqa: S603 # the program is the user's own choice, and no shell reads the command
            command, input=source.encode(), capture_output=True, timeout=TIME_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RenderError(f"{program} could not draw: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        hint = "; only Graphviz itself draws PDF" if kind == "pdf" else ""
        why = said[0] if said else f"exit status {done.returncode}"
        raise RenderError(f"{program} could not draw {kind}: {why}{hint}")
    return done.stdout
