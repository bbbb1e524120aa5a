"""The `lifecycle` command: one module for each of its commands.

Exit status: 0 fine, 1 violations found, 2 bad input.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

import lifecycle
from lifecycle.errors import LifecycleError

__all__ = ["main"]

COMMANDS = {
    "check": "Check the traces of finished or running sessions.",
    "demo": "Calibrate and prune a small network under a lifecycle, then make a mistake.",
    "draw": "Draw a protocol, and a run on top of it.",
    "next": "Show what is legal in a state.",
    "protocols": "List the built-in protocols.",
}
"""The commands with their help, so that asking for help imports none of them."""


class BadInputError(click.ClickException):
    """What the caller gave is wrong; one line says what, and the exit status is 2."""

    exit_code = 2


class Commands(click.Group):
    """Commands whose modules are imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"lifecycle.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; bad input ends it with one clear line."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # Whoever reads has enough, and click ends quietly.
        except (LifecycleError, OSError) as error:
            raise BadInputError(str(error)) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lifecycle.__version__, prog_name="lifecycle")
def main() -> None:
    """Legal event orders for compression sessions: check them, draw them, see them enforced."""
