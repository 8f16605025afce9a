"""Which line of the user's code it is: the innermost that belongs to neither torch nor pellucid."""

from __future__ import annotations

import os
import sys
import traceback
from functools import cache
from types import FrameType, TracebackType

import torch

import pellucid

_TORCH = os.path.dirname(torch.__file__) + os.sep
_PELLUCID = os.path.dirname(pellucid.__file__) + os.sep


@cache
def is_torch(file: str) -> bool:
    """Whether a file of code belongs to torch."""
    return file.startswith(_TORCH)


@cache
def is_users(file: str) -> bool:
    """Whether it belongs to neither torch nor pellucid."""
    return not file.startswith((_TORCH, _PELLUCID, "<frozen"))


def where() -> str:
    """The line that runs now, as messages say it: `train.py:31`; `''` if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return "" if frame is None else said(frame.f_code.co_filename, frame.f_lineno)


def frames() -> list[FrameType]:
    """The user's frames that are running, innermost first."""
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            found.append(frame)
        frame = frame.f_back
    return found


def raised_at(trace: TracebackType | None) -> str:
    """The user's innermost line of a traceback."""
    found = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(trace)]
    return next((said(file, line) for file, line in reversed(found) if is_users(file)), "")


def said(file: str, line: int) -> str:
    """A line as messages say it: a file below the working folder with its folders, another by its name."""
    path = os.path.relpath(file) if os.path.splitdrive(file)[0] == os.path.splitdrive(os.getcwd())[0] else file
    return f"{os.path.basename(file) if path.startswith(os.pardir) else path}:{line}"
