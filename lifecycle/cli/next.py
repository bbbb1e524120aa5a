"""``lifecycle next``: what is legal in a state."""

from __future__ import annotations

import click

from lifecycle.errors import names

__all__ = ["command"]


@click.command("next")
@click.argument("state")
@click.option(
    "--protocol", "name", default="compression", show_default=True, metavar="NAME|FILE.py:NAME", help="The protocol."
)
def command(state: str, name: str) -> None:
    """Show what is legal in a state, and the shortest way to the end."""
    from lifecycle.lookup import find_protocol

    protocol = find_protocol(name)
    path = next(path for path, reached in protocol.walk(state) if reached in protocol.final)
    for move in protocol.transitions:
        if move.source == state:
            guard = f" [{move.guard.name}]" if move.guard else ""
            click.echo(f"{move.event.name}{guard} -> {move.target}")
    click.echo(f"shortest way to the end: {names(path)}" if path else "the run is over")
