"""Make sure of a run's folder and disk space before hours are spent on what goes there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pellucid.errors import UsageError
from pellucid.runs.statistics import DESCRIPTION, RECORD, STATS, WEIGHTS
from pellucid.text import printable
from pellucid.training.kept import FOLDER, TRAINING, training_of

PROBE_BYTES = 1 << 16
LOCK, _RESERVE = ".training.lock", ".reserved"
_CHUNK = bytes(1 << 20)


class Reservation:
    """A folder that no other training writes into, and disk space in it.

    Attributes:
        folder: The run folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._reserve = folder / _RESERVE

    def hold(self, n_bytes: int, meanwhile: int = 0) -> None:
        """Take `n_bytes` of disk for the end, and make sure that `meanwhile` more are there now.

        Raises:
            UsageError: the disk has not that much room, or a limit on file sizes is lower.
        """
        try:
            with self._reserve.open("wb") as file:
                for start in range(0, n_bytes + meanwhile, len(_CHUNK)):  # written, for a sparse file takes no room
                    file.write(_CHUNK[: n_bytes + meanwhile - start])
                file.flush()
                os.fsync(file.fileno())
                file.truncate(n_bytes)
        except OSError as error:
            self.release()
            raise UsageError(
                f"{printable(self.folder)}: has no room for the {(n_bytes + meanwhile) / 1e6:,.1f} MB that this run "
                f"will write ({error.strerror}); make room, or name another folder (command line: --out)"
            ) from None

    def release(self) -> None:
        """Give the disk space back, just before it is needed."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)


@contextmanager
def reserved(source: str, out: str | Path | None, *, resumes: bool = False) -> Iterator[Reservation]:
    """Hold a run folder: `out`, or a new one under `runs/`. Folders made for it vanish again if they stay empty.

    Args:
        source: What is trained on, for the name of a new folder.
        out: The folder; None for a new one.
        resumes: A training that was not done is gone on with there.

    Raises:
        UsageError: it is a file, cannot be written, holds a run or what is left of one, or another training has it.
    """
    if out is not None and not str(out):  # which would be the current folder
        raise UsageError("the name of the run folder is empty; name one, or '.' for the current folder")
    made: list[Path] = []
    try:
        folder = _new_folder(source, made) if out is None else _given_folder(Path(out), made)
        lock = FileLock(folder / LOCK, blocking=False)
        lock.acquire()
    except Timeout:
        if resumes:
            raise UsageError(f"{printable(out)}: another process is training there") from None
        raise UsageError(
            f"{printable(out)}: another training writes into it; name another folder (command line: --out)"
        ) from None
    except OSError as error:
        _remove(made)
        place = printable(out or Path("runs").resolve())
        raise UsageError(
            f"{place}: cannot be written ({error.strerror}); name another folder (command line: --out)"
        ) from None
    try:
        reservation = Reservation(folder)
        if not resumes:
            _check_unused(folder)
        for scratch in folder.glob(".*.tmp"):  # half a file of a training that was killed
            scratch.unlink(missing_ok=True)
        try:
            reservation.hold(PROBE_BYTES)
            yield reservation
        finally:
            reservation.release()
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        _remove(made)


def _given_folder(folder: Path, made: list[Path]) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{printable(folder)}: is a file, not a folder; name another one (command line: --out)")
    made += [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _new_folder(source: str, made: list[Path]) -> Path:
    """A folder of our own: its creation fails if it is there, so two trainings of one second do not share it."""
    parent = Path("runs")
    if not parent.exists():
        made.append(parent)
    parent.mkdir(exist_ok=True)
    # A name may have 255 bytes, of which a character takes up to four.
    stem = f"{Path(source).resolve().stem[:50] or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while True:
        folder = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        made.insert(0, folder)
        return folder


def _check_unused(folder: Path) -> None:
    if (folder / DESCRIPTION).exists():
        raise UsageError(f"{printable(folder)}: holds a run already; name another folder (command line: --out)")
    if (folder / FOLDER / TRAINING).exists() and training_of(folder).get("state") != "done":
        raise UsageError(
            f"{printable(folder)}: holds a training that was killed; go on with it (pellucid train --resume "
            f"{printable(folder)}), or name another folder (command line: --out)"
        )
    left = [name for name in (WEIGHTS, RECORD, STATS) if (folder / name).exists()]
    if left:
        raise UsageError(
            f"{printable(folder)}: holds what is left of a training that was killed ({', '.join(left)}); look at it, "
            "then delete it, or name another folder (command line: --out)"
        )


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # not empty: it is in use
            folder.rmdir()
