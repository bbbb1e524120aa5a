"""Protocols as a command line or a page names them."""

from __future__ import annotations

import runpy
from pathlib import Path

from lifecycle import protocols
from lifecycle.errors import LifecycleError
from lifecycle.events import nearest
from lifecycle.protocol import Protocol

__all__ = ["find_protocol"]


def find_protocol(name: str, folder: str | Path = ".") -> Protocol:
    """A built-in protocol, or one that a Python file defines.

    Args:
        name: ``NAME``, or ``FILE.py:NAME``. The file is run.
        folder: Where relative files are.

    Raises:
        LifecycleError: There is no such protocol, or the file fails.
        OSError: The file cannot be read.

    Examples:
        >>> find_protocol("training")
        <Protocol 'training': 7 states, 8 transitions>
    """
    file, colon, variable = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        if name.endswith(".py"):
            raise LifecycleError(f"{name!r} lacks the name of a protocol in that file: {name}:NAME")
        return protocols.get(name)
    path = Path(folder, file)
    # So that what cannot be read is told from what fails when it runs.
    path.read_bytes()
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        raise LifecycleError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    made = {key: value for key, value in found.items() if isinstance(value, Protocol)}
    if variable not in made:
        known = nearest(variable, made) if made else "it has none"
        raise LifecycleError(f"{variable!r} is not a protocol in {file}; {known}")
    return made[variable]
