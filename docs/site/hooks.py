"""The SDK's README is a page of the site, too; it stands beside the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

README = Path(__file__).parents[2] / "sdk" / "README.md"


def on_files(files: Files, config: Any) -> Files:
    """Add it, with its links as they are from here."""
    text = README.read_text(encoding="utf-8").replace("](../docs/", "](")
    files.append(File.generated(config, "sdk.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to it lead to the page."""
    return markdown.replace("](../sdk/README.md", "](sdk.md")
