"""Commands of pellucid in this process: one of its own would spend two seconds on importing torch.

Processes of their own are in `journeys/`: each command of the README, signals, pipes, terminals.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pellucid import cli


def pellucid(*args: object, cwd: Path | None = None) -> CompletedProcess[str]:
    """Run a command, in a folder if one is given; an error that is none of the user's is raised."""
    words = list(map(str, args))
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["pellucid", *words])
        patch.chdir(cwd or Path.cwd())
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return CompletedProcess(words, int(stop.value.code or 0), out.getvalue(), err.getvalue())
