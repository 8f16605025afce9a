"""The command line as a process of its own: `pellucid`, or `python -m pellucid`."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

from pellucid.cli import main


def process() -> None:
    """Run `main` and end at once: Python would spend half a second on taking the modules of torch apart."""
    ended: list[int] = []
    atexit.register(_leave, ended)  # what is registered first runs last: by then all others have cleaned up
    try:
        main()
    except SystemExit as done:
        if isinstance(done.code, int):
            ended.append(done.code)
        raise


def _leave(ended: list[int]) -> None:
    if not ended:  # by an exception, whose exit code is Python's to give
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, or it is closed
            stream.flush()
    os._exit(ended[0])


if __name__ == "__main__":
    process()
