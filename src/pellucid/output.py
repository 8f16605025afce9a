"""Lines for people, on whatever a process was given to write to.

Nothing here fails: a line that cannot be shown must not end the training it reports on.
"""

from __future__ import annotations

import codecs
import sys
from typing import Any

# What our own texts use, for terminals that lack it: cp437 has no ×, ascii nothing of the kind.
_PLAIN = {
    "×": "x", "✗": "x", "✓": "+", "−": "-", "±": "+-", "→": "->", "≤": "<=", "…": "...", "·": "*",
    "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip
PLAINER = "pellucid.plainer"
lost: list[OSError] = []  # why lines could not be written, for whoever ends the process


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    escaped = (_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in missing)
    return "".join(escaped), error.end


codecs.register_error(PLAINER, _plainer)


def say(line: str = "") -> None:
    """Print a line on standard output, at once."""
    _write(sys.stdout, line)


def complain(line: str) -> None:
    """Print a line on standard error."""
    _write(sys.stderr, line)


def is_terminal(stream: Any) -> bool:
    """Whether a stream, if it is one at all, leads to a terminal."""
    ask = getattr(stream, "isatty", None)
    try:
        return bool(ask and ask())
    except ValueError:  # closed
        return False


def accept_every_character() -> None:
    """Let standard output and error escape what their encoding lacks, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors=PLAINER)


def _write(stream: Any, line: str) -> None:
    if stream is None:  # a program without a console
        return
    try:
        try:
            stream.write(line + "\n")
        except UnicodeEncodeError as error:
            stream.write(line.encode(error.encoding, PLAINER).decode(error.encoding) + "\n")
        flush = getattr(stream, "flush", None)
        if flush:
            flush()
    except OSError as error:  # its reader has gone, its disk is full
        lost.append(error)
    except ValueError:  # it was closed
        return
