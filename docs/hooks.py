"""Hooks for mkdocs: pages show diagrams and tables that are drawn from the protocols."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.exceptions import PluginError

from lifecycle.diagram.pages import expand
from lifecycle.errors import LifecycleError

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Replace the directives of a page; files are looked up beside it."""
    try:
        return expand(markdown, Path(str(page.file.abs_src_path)).parent)
    except LifecycleError as error:
        raise PluginError(f"{page.file.src_uri}, {error}") from error
