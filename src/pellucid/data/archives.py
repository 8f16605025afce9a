"""Unpack an untrusted archive: whole or not at all, inside its folder, within limits.

Python's own extraction is not used: of a zip it drops `..` from names and lets links become text files, and it stops in
silence at a damaged header of a tar.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from pellucid.data.clutter import is_clutter
from pellucid.errors import DataError
from pellucid.text import printable

ENDINGS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tar", ".zip")
MOST_FILES = 5_000_000
# Pictures hardly shrink, and text tenfold; zeros shrink a thousandfold (deflate) and more (bzip2, xz).
MOST_TIMES, ALWAYS_BYTES = 100, 1 << 30
LONGEST_NAME = 255  # bytes of one folder's or file's name, on all common file systems
LONGEST_LINK = 4096  # bytes of what a link leads to, on all common systems
MOST_FOLDERS = 100  # in one another; Python's own functions for trees of folders call themselves for each
# Between two files of a tar: a header of 512 bytes, and before it names, rights and attributes that are longer.
LONGEST_HEADER = 1 << 18
_TAR_PACKING = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
PIECE_BYTES = 1 << 20
SHOWN = 200  # characters of a name in a message


class UnsafeError(Exception):
    """The archive is damaged, holds something that is not unpacked, or too much of it."""


_DAMAGE = (
    UnsafeError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ValueError,  # a number or a name in a header
    RuntimeError,  # encrypted, or packed in a way that is not built in (NotImplementedError)
)


@dataclass(frozen=True)
class Member:
    """One entry of an archive: a folder, a file (`open` reads it), or a link to the entry `target`."""

    parts: tuple[str, ...]
    size: int = 0
    open: Callable[[], IO[bytes]] | None = None
    target: tuple[str, ...] | None = None


def unpack(archive: Path, folder: Path, max_bytes: int | None = None, max_files: int = MOST_FILES) -> None:
    """Unpack an archive's files into an empty folder; what systems leave behind (`__MACOSX`, `._*`) is left out.

    Args:
        archive: A file with one of `ENDINGS`.
        folder: An existing, empty folder. After an error it is to be thrown away.
        max_bytes: Most bytes that come out; None allows 100 times the archive's size, and always 1 GiB.
        max_files: Most files and folders that come out.

    Raises:
        DataError: the archive is damaged, empty, encrypted or larger than allowed, or holds names that lead outside
            (`..`, absolute), links that do, or devices.
        OSError: the folder cannot be written.
    """
    limit = most_bytes(archive) if max_bytes is None else max_bytes
    members = _zip_members(archive) if archive.suffix == ".zip" else _tar_members(archive)
    try:
        with closing(members):
            n_files = _write(members, folder, limit, max_files)
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        name = printable(Path(error.filename).relative_to(folder))
        raise DataError(f"damaged or unsafe archive ({name!r} is two things in it)") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise DataError("the archive holds a path longer than a file's can be") from None
        if error.errno not in (None, errno.EINVAL):  # EINVAL: a header sends the reader before the archive's start
            raise  # the disk's fault
        raise DataError(f"damaged or unsafe archive ({printable(error)})") from None
    except _DAMAGE as error:
        raise DataError(f"damaged or unsafe archive ({printable(error)})") from None
    if not n_files:
        raise DataError("the archive holds no files")


def most_bytes(packed: Path) -> int:
    """How much may come out of an untrusted packed file."""
    return max(ALWAYS_BYTES, MOST_TIMES * packed.stat().st_size)


def single_folder(folder: Path) -> Path:
    """The one folder that an unpacked archive consists of, or `folder` itself where there is more or less."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def is_web_page(file: Path) -> bool:
    """Whether a download is the page of an error or a log-in instead of a file."""
    with file.open("rb") as opened:
        return opened.read(200).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _write(members: Iterable[Member], folder: Path, max_bytes: int, max_files: int) -> int:
    """Write all members, links last; returns the number of files."""
    links: list[Member] = []
    n_files = n_entries = n_bytes = 0
    for member in members:
        if not member.parts or any(map(is_clutter, member.parts)):
            continue
        n_entries, n_bytes = n_entries + 1, n_bytes + member.size
        if n_entries > max_files:
            raise UnsafeError(f"more than {max_files:,} files and folders; max_files allows more")
        if n_bytes > max_bytes or member.size < 0:
            raise UnsafeError(f"more than {max_bytes:,} bytes when unpacked; max_bytes allows more")
        path = folder.joinpath(*member.parts)
        if member.target is not None:
            links.append(member)
        elif member.open is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(member, member.open, path)
            n_files += 1
    for link in links:
        _link(link, folder)
    return n_files


def _copy(member: Member, data: Callable[[], IO[bytes]], path: Path) -> None:
    left = member.size
    with data() as source, path.open("wb") as target:
        # One byte more than its header says shows that there is more, and the check sum is looked at.
        while piece := source.read(min(PIECE_BYTES, left + 1)):
            left -= len(piece)
            if left < 0:
                break
            target.write(piece)
    if left:
        raise UnsafeError(f"{_shown(member.parts)} does not have the size that its header says")


def _link(link: Member, folder: Path) -> None:
    """Make a link to a file or folder of the archive. All of these exist by now: nothing is written through a link."""
    assert link.target is not None
    path, target = folder.joinpath(*link.parts), folder.joinpath(*link.target)
    if not target.exists() or target.resolve() != folder.resolve().joinpath(*link.target):
        raise UnsafeError(f"{_shown(link.parts)} is a link to {_shown(link.target)}, no file or folder of it")
    if path.is_relative_to(target):
        raise UnsafeError(f"{_shown(link.parts)} is a link to a folder around it")
    if os.path.lexists(path):
        raise UnsafeError(f"{_shown(link.parts)} is two things in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(os.path.relpath(target, path.parent), target_is_directory=target.is_dir())


def _zip_members(archive: Path) -> Generator[Member]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            parts = _parts(info.filename)
            if info.filename.endswith(("/", "\\")):
                yield Member(parts)
            elif stat.S_ISLNK(info.external_attr >> 16):
                with opened.open(info) as link:
                    target = link.read(LONGEST_LINK + 1)
                if len(target) > LONGEST_LINK:
                    raise UnsafeError(f"{_shown(parts)} is a link to a name longer than {LONGEST_LINK:,} bytes")
                yield Member(parts, target=_parts(target.decode("utf-8", "replace"), parts[:-1]))
            else:
                yield Member(parts, info.file_size, partial(opened.open, info))


class _Bounded:
    """A stream that may be read no further than `left` more bytes: tarfile reads any header into memory."""

    def __init__(self, stream: IO[bytes]):
        self.seek, self.tell = stream.seek, stream.tell
        self._read, self.left = stream.read, LONGEST_HEADER

    def read(self, n: int) -> bytes:
        if n > self.left:
            raise UnsafeError(f"it has a header of more than {LONGEST_HEADER:,} bytes")
        self.left -= n
        return self._read(n)


def _tar_members(archive: Path) -> Generator[Member]:
    with archive.open("rb") as file:
        unpacked = _TAR_PACKING.get(file.read(2), open)
    with unpacked(archive, "rb") as file:
        stream = _Bounded(file)
        with tarfile.open(fileobj=stream, mode="r:") as opened:  # type: ignore[call-overload]  # it only reads
            while info := opened.next():
                opened.members.clear()  # it would keep every header
                yield _tar_member(opened, stream, info)
                stream.left = LONGEST_HEADER
            # tarfile takes a damaged header for the end of the archive; the end is a block of zeros.
            file.seek(opened.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise UnsafeError("it does not end where an archive ends: cut off, or a damaged header")


def _tar_member(archive: tarfile.TarFile, stream: _Bounded, info: tarfile.TarInfo) -> Member:
    parts = _parts(info.name)
    if info.isdir():
        return Member(parts)
    if info.isreg():
        return Member(parts, info.size, partial(_extracted, archive, stream, info))
    if info.issym():
        return Member(parts, target=_parts(info.linkname, parts[:-1]))
    if info.islnk():
        return Member(parts, target=_parts(info.linkname))
    raise UnsafeError(f"{_shown(parts)} is neither a file, a folder nor a link")


def _extracted(archive: tarfile.TarFile, stream: _Bounded, info: tarfile.TarInfo) -> IO[bytes]:
    stream.left = info.size
    file = archive.extractfile(info)
    assert file is not None  # it is a regular one
    return file


def _parts(name: str, start: tuple[str, ...] = ()) -> tuple[str, ...]:
    r"""A name's folders and file, below `start`; backslashes divide too, as in archives made on Windows.

    Raises:
        UnsafeError: it leads outside, or no file system has such a name.
    """
    slashed = name.replace("\\", "/")
    parts = list(start)
    if slashed.startswith("/") or slashed[1:2] == ":" or "\0" in slashed:
        raise UnsafeError(f"the name {_shown([name])} is no path inside the archive")
    for part in slashed.split("/"):
        if part == "..":
            if not start or not parts:  # links may climb inside the archive, names may not
                raise UnsafeError(f"the name {_shown([name])} leads outside")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise UnsafeError(f"the name {_shown([name])} is longer than a file's can be")
        if len(parts) > MOST_FOLDERS:
            raise UnsafeError(f"the name {_shown([name])} has more than {MOST_FOLDERS} folders in one another")
    return tuple(parts)


def _shown(parts: Iterable[str]) -> str:
    name = "/".join(parts)
    return repr(printable(name[:SHOWN])) + ("…" if len(name) > SHOWN else "")
