"""Docstrings of the package for the API pages: fences become code blocks, stars of shapes stay stars."""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

FENCE = "```"
PAIR = re.compile(r"    (\w+(?:, \w+)+): ")  # attributes described together: "rows, columns: …"
STARRED = re.compile(r"(?<=[ (])\*(?=\w+\))")  # the star of a shape: (channel, *grid)


def mend_fences(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn each fenced block into a directive, in place."""
    made, inside = [], False
    for line in split_pairs(lines):
        if line.strip().startswith(FENCE):
            inside = not inside
            made += [".. code-block:: text", ""] if inside else [""]
        else:
            made.append(f"   {line}" if inside else STARRED.sub(r"\\*", line))
    lines[:] = made


def split_pairs(lines: list[str]) -> list[str]:
    """Describe attributes one by one, which napoleon does by itself for arguments only."""
    if "Attributes:" not in lines:
        return lines
    made = lines[: lines.index("Attributes:")]
    rest = lines[len(made) :]
    while rest:
        n = 1 + next((i for i, line in enumerate(rest[1:]) if not line.startswith("     ")), len(rest) - 1)
        found = PAIR.match(rest[0])
        for name in found[1].split(", ") if found else [None]:
            made += [f"    {name}: {rest[0][found.end() :]}" if found else rest[0], *rest[1:n]]
        rest = rest[n:]
    return made


def setup(app: Sphinx) -> dict[str, Any]:
    """Run before the Google sections are read."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", mend_fences, priority=400)
    return {"parallel_read_safe": True}
