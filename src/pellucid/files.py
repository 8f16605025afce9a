"""Files that appear whole or not at all, and files of others read with care."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.text import printable

MOST_JSON_BYTES = 64 << 20  # a run folder of a thousand epochs and 20,000 classes has about 2 MB


@contextmanager
def appearing_file(target: str | Path) -> Iterator[Path]:
    """Give a scratch path beside `target` that becomes it if the block succeeds and vanishes if it does not.

    The file gets the permissions of any new file (the umask's), whatever the library that writes it prefers, and its
    bytes are on disk before the name is.

    Raises:
        OSError: the folder cannot be written, the disk is full.
    """
    target = Path(target)
    scratch = target.with_name(f".{target.name[:60]}.{uuid.uuid4().hex[:8]}.tmp")
    with scratch.open("xb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777  # what the umask leaves: safetensors writes 0600
    try:
        yield scratch
        scratch.chmod(mode)
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())
        scratch.replace(target)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def result_file(target: str | Path) -> Iterator[Path]:
    """`appearing_file` for a result that a user gave a name: its folder is made, and what goes wrong is an answer.

    Raises:
        UsageError: it cannot be written.
    """
    target = Path(target)
    if not target.name:
        raise UsageError(f"{printable(target)!r}: names a folder; name a file in it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with appearing_file(target) as scratch:
            yield scratch
    except OSError as error:
        raise UsageError(f"{printable(target)}: cannot be written ({error.strerror or error})") from None


def write_text(target: str | Path, text: str) -> None:
    """Write UTF-8 text as `appearing_file` does."""
    with appearing_file(target) as scratch:
        scratch.write_text(text, encoding="utf-8")


def regular_file(path: str | Path, hint: str = "") -> Path:
    """The path of a file that is really one; `hint` is added where there is none.

    Raises:
        UsageError: it does not exist, or is a folder, a pipe or a device (opening a pipe would wait for ever).
    """
    path = Path(path)
    try:
        if path.is_file():
            return path
        there = path.exists()
    except (OSError, ValueError) as error:  # a name too long, a null character
        raise UsageError(f"{printable(path)}: cannot be opened ({error})") from None
    if not there:
        raise UsageError(f"{printable(path)}: no such file{f'; {hint}' if hint else ''}")
    raise UsageError(f"{printable(path)}: is a folder, a pipe or a device, not a file")


def read_json(path: str | Path, hint: str = "") -> dict[str, Any]:
    """Read a JSON object from an untrusted file.

    Raises:
        UsageError: no such file (with `hint`), not a regular one, larger than 64 MiB, no JSON, or no JSON object.
    """
    file = regular_file(path, hint)
    try:
        size = file.stat().st_size
        if size > MOST_JSON_BYTES:
            raise UsageError(f"{printable(path)}: {size:,} bytes are too many for a file of settings")
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{printable(path)}: damaged, or no JSON ({printable(error)})") from None
    if not isinstance(value, dict):
        raise UsageError(f"{printable(path)}: damaged, expected a JSON object and found a {type(value).__name__}")
    return value
