"""Where pellucid keeps data sets and pixel stores, and how something appears there whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from pellucid.errors import UsageError


def home() -> Path:
    """The cache folder: `PELLUCID_HOME`, or the user's cache folder of this system.

    Raises:
        UsageError: this user has no home folder, as in some containers, and `PELLUCID_HOME` gives none.
    """
    given = os.environ.get("PELLUCID_HOME")
    try:
        folder = Path(given).expanduser() if given else user_cache_path("pellucid")
    except RuntimeError:
        folder = Path("~")
    if folder.parts[:1] == ("~",):  # what is left where nobody knows a home; a folder of that name would be made
        raise UsageError("this user has no home folder to keep decoded images in: set PELLUCID_HOME to a folder")
    return folder


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold the lock of `target` against other processes; a killed holder releases it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        yield


def sweep(scratch: Path) -> None:
    """Delete a scratch folder of `appearing` unless the process that makes it is still at work."""
    lock = FileLock(scratch.with_name(f"{scratch.name.rsplit('.', 2)[0]}.lock"))
    with suppress(Timeout), lock.acquire(blocking=False):
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `target` if the block succeeds and vanishes if it does not.

    Call it under `locked(target)`: leftovers of killed processes are swept away first.
    """
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
