"""Docstrings of the package for the API pages: fences become code blocks, stars of shapes stay stars."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

FENCE = "```"
STARRED = re.compile(r"(?<=[ (])\*(?=\w+\))")  # the star of a shape: (channel, *grid)


def mend_fences(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn each fenced block into a directive, in place."""
    made, inside = [], False
    for line in lines:
        if line.strip().startswith(FENCE):
            inside = not inside
            made += [".. code-block:: text", ""] if inside else [""]
        else:
            made.append(f"   {line}" if inside else STARRED.sub(r"\\*", line))
    lines[:] = made


def setup(app: Sphinx) -> dict[str, Any]:
    """Run before the Google sections are read."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", mend_fences, priority=400)
    return {"parallel_read_safe": True}
