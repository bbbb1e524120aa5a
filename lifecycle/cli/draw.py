"""``lifecycle draw``: a protocol as a picture, and a run on top of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lifecycle.diagram.palette import Theme
    from lifecycle.diagram.renderers.dot import Direction
    from lifecycle.diagram.renderers.graphviz import Format

__all__ = ["command"]

ENDINGS = {
    ".svg": "svg",
    ".png": "png",
    ".pdf": "pdf",
    ".dot": "dot",
    ".gv": "dot",
    ".mmd": "mermaid",
    ".mermaid": "mermaid",
    ".md": "table",
}
"""The format that the ending of a file stands for."""

BINARY = ("png", "pdf")


@click.command("draw")
@click.argument("protocol", required=False, metavar="[PROTOCOL|FILE.py:NAME]")
@click.option("--trace", metavar="FILE", help="Draw this run on top; - is standard input.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["svg", "png", "pdf", "dot", "mermaid", "table"]),
    help="By default what the ending of the output says, else svg.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; by default standard output.")
@click.option("--theme", type=click.Choice(["auto", "light", "dark"]), default="auto", show_default=True)
@click.option("--direction", type=click.Choice(["TB", "LR"]), default="TB", show_default=True)
@click.option("--all", "everything", is_flag=True, help="Draw all built-in protocols into a folder (diagrams, or -o).")
@click.option("--check", is_flag=True, help="With --all: say which files are not what would be drawn; exit 1 if any.")
def command(  # noqa: PLR0917 # click passes them by name
    protocol: str | None,
    trace: str | None,
    kind: str | None,
    output: Path | None,
    theme: Theme,
    direction: Direction,
    everything: bool,
    check: bool,
) -> None:
    """Draw a protocol, and a run on top of it.

    Without a name it is the protocol that a journal was written with, else compression.

    DOT, Mermaid and the Markdown table need no other program. SVG and PNG need Graphviz or the extra `render`, PDF
    needs Graphviz.
    """
    if everything:
        _draw_all(output or Path("diagrams"), check=check)
        return
    if check:
        raise click.UsageError("--check needs --all")
    chosen = kind or _from_ending(output)
    content = _draw(protocol, trace, chosen, theme, direction)
    if output is not None:
        output.write_bytes(content)
    elif chosen in BINARY and is_terminal():
        raise click.UsageError(f"a terminal cannot show {chosen}; name a file with -o")
    else:
        click.echo(content, nl=False)


def is_terminal() -> bool:
    """Whether what is printed goes to a person."""
    return sys.stdout.isatty()


def _from_ending(output: Path | None) -> str:
    if output is None:
        return "svg"
    if output.suffix.lower() not in ENDINGS:
        raise click.UsageError(f"{output}: the ending is none of {', '.join(ENDINGS)}; say --format")
    return ENDINGS[output.suffix.lower()]


def _draw(name: str | None, file: str | None, kind: str, theme: Theme, direction: Direction) -> bytes:
    from lifecycle import diagram, protocols, trace
    from lifecycle.diagram.runs import overlay_of_report, run_to_show
    from lifecycle.lookup import find_protocol

    named = find_protocol(name) if name else None
    overlay = None
    if file:
        report = trace.check(sys.stdin.buffer if file == "-" else file, named)
        shown = named or protocols.get(run_to_show(report).protocol)
        overlay = overlay_of_report(report, shown)
    else:
        shown = named or protocols.COMPRESSION
    if kind == "table":
        return diagram.to_table(shown, overlay).encode()
    form: Format = kind  # type: ignore[assignment] # the option has only these
    return diagram.draw(diagram.picture(shown, overlay), form, theme=theme, direction=direction)


def _draw_all(folder: Path, *, check: bool) -> None:
    from lifecycle.diagram import gallery

    if not check:
        click.echo(f"{len(gallery.write(folder))} files in {folder}")
        return
    outdated = gallery.outdated(folder)
    if outdated:
        names = ", ".join(outdated)
        click.echo(
            f"{folder}: not what the code draws: {names}; `lifecycle draw --all -o {folder}` draws them", err=True
        )
        sys.exit(1)
    click.echo(f"{folder}: up to date")
