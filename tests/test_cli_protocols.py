"""``lifecycle protocols``: the built-in protocols."""

from __future__ import annotations

from click.testing import CliRunner

from lifecycle import protocols
from lifecycle.cli import main


def test_every_built_in_protocol_is_listed_with_its_language():
    done = CliRunner().invoke(main, ["protocols"])
    assert done.exit_code == 0
    assert [line.split(maxsplit=1) for line in done.output.splitlines()] == [
        [protocol.name, protocol.description] for protocol in protocols.BUILT_IN.values()
    ]
