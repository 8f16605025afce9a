"""The pixel store: every image of a set decoded once into one uint8 memory map.

A store is a folder `PELLUCID_HOME/stores/<key>/` of `pixels.npy` (image, channel, row, column), `moments.npy` (image,
channel, (sum, sum of squares)) and `store.json`. The key is made of the decoding and of what the system knows of each
file (see `store_key`), so a changed file is a new key. Stores are built under a lock in a scratch folder that is
renamed when whole, verified on open, and the least recently used are evicted beyond `BUDGET_BYTES`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.decoder import OUT_OF_MEMORY, Job, decode_rows
from pellucid.data.home import appearing, home, locked, sweep
from pellucid.data.images import Decoding
from pellucid.data.opening import decoder_settings
from pellucid.data.progress import Tick, progress
from pellucid.errors import DataError, PellucidError
from pellucid.text import counted

VERSION = 2
BUDGET_BYTES = 32 << 30
# With fewer files, and fewer bytes of them, starting a decoder process (0.2 s) costs more than it saves.
FILES_PER_PROCESS, BYTES_PER_PROCESS = 400, 8 << 20
CHUNK_FILES, CHUNK_BYTES = 128, 16 << 20  # written at once: system calls cost as much as decoding a small image
CANNOT_RESERVE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS}  # some file systems cannot
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}  # of this moment, whatever the cache folder
SAMPLED_BLOCKS, BLOCK_BYTES = 32, 1 << 16


@dataclass(frozen=True)
class PixelStore:
    """Decoded images, opened for reading.

    Attributes:
        pixels: uint8, shape (image, channel, row, column), mapped from disk.
        moments: int64, shape (image, channel, 2): sum and sum of squares of the pixels.
        bad: Row of each file that could not be decoded, and why; its pixels are zero.
        key: Its name, see `store_key`.
    """

    pixels: np.ndarray
    moments: np.ndarray
    bad: dict[int, str]
    key: str

    @classmethod
    def open(cls, files: Sequence[Path], decoding: Decoding, workers: int | None = None) -> PixelStore:
        """Open the store of these files, building it first where it is missing, damaged or out of date.

        Args:
            files: Image files, in row order.
            decoding: How a file becomes pixels.
            workers: Decoder processes; None takes one a core.

        Raises:
            DataError: no file can be decoded, or sizes differ without a Resize.
            PellucidError: the disk is full or not writable; files cannot be read now for no fault of their own.
        """
        folder = stores_folder() / store_key(files, decoding)
        store = _opened(folder)
        if store is None:
            try:
                with locked(folder):
                    store = _opened(folder)  # another process may have built it while we waited
                    if store is None:
                        _build(folder, files, decoding, workers or os.cpu_count() or 1)
                        store = _opened(folder)
            except OSError as error:
                reason = error.strerror or str(error)
                if error.errno in SHORTAGES:
                    raise PellucidError(f"cannot decode the images now: {reason}; nothing was stored") from error
                raise _cannot_write(reason) from error
            except MemoryError:
                raise PellucidError(OUT_OF_MEMORY) from None
        if store is None:
            raise PellucidError(f"the pixel store {folder} cannot be read back; stream with cache=False")
        with suppress(OSError):
            os.utime(folder)
        return store


def stores_folder() -> Path:
    """Folder of all pixel stores."""
    return home() / "stores"


def store_key(files: Sequence[Path], decoding: Decoding) -> str:
    """Name of the store of these files, which changes with all that their pixels depend on.

    That is the decoding, Pillow's settings and version, and of each file path, size, both times and inode: two files
    that change places with their times keep their inodes, and what `cp -p` or `touch` set back shows in the ctime.
    """
    settings = [VERSION, decoding.to_json(), decoder_settings()]
    digest = hashlib.blake2b(json.dumps(settings).encode(), digest_size=16)
    lines = []
    for file in map(str, files):
        file = file if file.startswith(os.sep) else os.path.abspath(file)
        try:
            stat = os.stat(file)
            lines.append(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}")
        except OSError as error:
            lines.append(f"{file}\0{error.errno}")
    digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def evict(keep: Path | None = None, budget_bytes: int = BUDGET_BYTES) -> int:
    """Delete the least recently used stores until the rest fit in `budget_bytes`; returns the bytes freed.

    `evict(budget_bytes=0)` clears the cache.
    """
    for scratch in stores_folder().glob(".*.tmp"):
        sweep(scratch)
    folders = [p for p in stores_folder().glob("*") if p.is_dir() and not p.name.startswith(".")]
    sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in folders}
    excess, freed = sum(sizes.values()) - budget_bytes, 0
    for folder in sorted(folders, key=lambda p: p.stat().st_mtime):
        if freed >= excess:
            break
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            freed += sizes[folder]
    return freed


def _opened(folder: Path) -> PixelStore | None:
    try:
        meta = json.loads((folder / "store.json").read_text())
        pixels = _mapped(folder / "pixels.npy")
        moments = np.load(folder / "moments.npy")
        if list(pixels.shape) != meta["shape"] or _checksum(folder) != meta["checksum"]:
            return None
        return PixelStore(pixels, moments, {int(row): reason for row, reason in meta["bad"].items()}, folder.name)
    except MemoryError:
        raise PellucidError(f"the pixel store {folder} does not fit in memory; stream with cache=False") from None
    except Exception:  # damage shows in many ways, and the remedy is one: build it again
        return None


def _mapped(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r")
    except OSError:  # some network and user-space file systems cannot map
        return np.load(file)


def _checksum(folder: Path) -> int:
    """CRC of the moments and of evenly spaced blocks of the pixels: finds a torn file in milliseconds."""
    crc = zlib.crc32((folder / "moments.npy").read_bytes())
    with (folder / "pixels.npy").open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for start in np.linspace(0, max(0, size - BLOCK_BYTES), SAMPLED_BLOCKS).astype(int):
            file.seek(int(start))
            crc = zlib.crc32(file.read(BLOCK_BYTES), crc)
    return zlib.crc32(str(size).encode(), crc)


def _build(folder: Path, files: Sequence[Path], decoding: Decoding, workers: int) -> None:
    shape = _first_shape(files, decoding)
    full_shape = (len(files), *shape)
    needed = int(np.prod(full_shape))
    evict(budget_bytes=max(0, BUDGET_BYTES - needed))
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise _cannot_write(f"it needs {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB left")
    with appearing(folder) as scratch:
        job = Job(
            chunks=_chunks([os.path.abspath(file) for file in files], int(np.prod(shape))),
            decoding=decoding.to_json(),
            settings=decoder_settings(),
            shape=list(shape),
            pixels=str(scratch / "pixels.npy"),
            pixels_offset=_allocate(scratch / "pixels.npy", full_shape, np.uint8),
            moments=str(scratch / "moments.npy"),
            moments_offset=_allocate(scratch / "moments.npy", (*full_shape[:2], 2), np.int64),
        )
        n_processes = _n_processes(files, workers)
        with progress(f"decoding {counted(len(files), 'image')}", len(files)) as tick:
            bad = _run(job, n_processes, tick)
        meta = {"version": VERSION, "shape": full_shape, "bad": bad, "checksum": _checksum(scratch)}
        (scratch / "store.json").write_text(json.dumps(meta))
        for file in scratch.iterdir():
            sync(file)


def _n_processes(files: Sequence[Path], workers: int) -> int:
    by_number = -(-len(files) // FILES_PER_PROCESS)
    if by_number >= workers:
        return workers
    n_bytes = sum(os.path.getsize(file) for file in files if os.path.exists(file))  # its decoder reports a missing one
    return min(workers, max(by_number, n_bytes // BYTES_PER_PROCESS))


def _chunks(files: list[str], image_bytes: int) -> list[tuple[int, list[str]]]:
    size = max(1, min(CHUNK_FILES, CHUNK_BYTES // image_bytes))
    return [(first, files[first : first + size]) for first in range(0, len(files), size)]


def _first_shape(files: Sequence[Path], decoding: Decoding) -> tuple[int, ...]:
    reasons = []
    for file in files:
        try:
            return decoding.pixels(file).shape
        except DataError as error:
            reasons.append(str(error))
    raise DataError(_listed(f"none of the {counted(len(files), 'image')} can be decoded", reasons))


def _allocate(path: Path, shape: tuple[int, ...], dtype: type) -> int:
    """Write an .npy header and reserve the room behind it, so that a full disk shows now; returns the data's offset."""
    with path.open("wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            os.posix_fallocate(file.fileno(), offset, size)
        except AttributeError:  # no Unix
            file.truncate(offset + size)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise
            file.truncate(offset + size)
    return offset


def sync(path: Path) -> None:
    """Have a file on the disk before it counts as written."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _run(job: Job, n_processes: int, tick: Tick) -> dict[int, str]:
    """Decode all rows, here or in processes; returns the damaged files' rows and reasons."""
    reports = decode_rows(job) if n_processes == 1 else _in_processes(job, n_processes)
    damaged: dict[int, str] = {}
    sizes: list[str] = []
    for report in reports:
        if isinstance(report, int):
            tick(report)
        elif report[1] == "size":
            sizes.append(report[2])
        else:
            damaged[report[0]] = report[2]
    if sizes:
        remedy = "images differ in size; add item_tfms=Resize(128) (command line: --size 128)"
        raise DataError(_listed(remedy, sorted(sizes)))
    return damaged


def _in_processes(job: Job, n_processes: int) -> Iterator[int | list[Any]]:
    """Share the chunks out in stripes over decoder processes and merge their reports."""
    # Nothing is imported from the working folder, which may be somebody's data with a numpy.py in it: neither as the
    # place where the interpreter starts (-P) nor through an empty or relative entry of PYTHONPATH.
    paths = [str(Path(__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(os.path.isabs, paths))}
    command = [sys.executable, "-P", "-m", "pellucid.data.decoder"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(n_processes)
    ]
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def serve(process: subprocess.Popen[str], stripe: slice) -> None:
        assert process.stdin and process.stdout
        with suppress(BrokenPipeError):  # a process that died is found by its exit code below
            json.dump(vars(replace(job, chunks=job.chunks[stripe])), process.stdin)
            process.stdin.close()
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    try:
        for i, process in enumerate(processes):
            threading.Thread(target=serve, args=(process, slice(i, None, n_processes)), daemon=True).start()
        running = n_processes
        while running:
            line = lines.get()
            if line is None:
                running -= 1
                continue
            report = json.loads(line)
            if isinstance(report, dict):
                raise PellucidError(report["stopped"]) if "stopped" in report else _cannot_write(report["unwritten"])
            yield report
        for process in processes:
            if process.wait():
                raise PellucidError(f"a decoder process ended with code {process.returncode}; try workers=1")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _cannot_write(reason: str) -> PellucidError:
    return PellucidError(
        f"cannot write the pixel store in {stores_folder()}: {reason}; "
        "free some space, move the cache with PELLUCID_HOME, or stream with cache=False"
    )


def _listed(what: str, reasons: Sequence[str], most: int = 10) -> str:
    more = [f"… and {len(reasons) - most} more"] if len(reasons) > most else []
    return "\n  ".join([f"{what}:", *reasons[:most], *more])
