"""The pixel store: right, found again, rebuilt when it must be, and whole or absent whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hanging import HUNG_S
from pellucid.data import store as store_module
from pellucid.data.images import Decoding, Resize
from pellucid.data.store import PixelStore, evict, store_key, stores_folder
from pellucid.errors import DataError, PellucidError

COLOUR, GREY = Decoding("RGB"), Decoding("L")


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))


def images(folder: Path, n: int = 6, size: tuple[int, int] = (7, 9), seed: int = 0) -> list[Path]:
    """Write `n` PNGs (height, width) of noise, colour."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    files = [folder / f"{i}.png" for i in range(n)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(file)
    return files


def decoded(files: list[Path], mode: str = "RGB") -> np.ndarray:
    """Pillow's own pixels, (image, channel, row, column)."""
    arrays = []
    for file in files:
        with Image.open(file) as image:
            arrays.append(np.asarray(image.convert(mode)).reshape(image.height, image.width, -1).transpose(2, 0, 1))
    return np.stack(arrays)


def folder_of(files: list[Path], decoding: Decoding = COLOUR) -> Path:
    return stores_folder() / store_key(files, decoding)


def leftovers() -> list[str]:
    """What lies in the stores' folder besides locks."""
    return sorted(p.name for p in stores_folder().iterdir() if p.suffix != ".lock") if stores_folder().exists() else []


def refuse(*args, **kwargs):
    raise AssertionError("this must not be called")


def start(code: str, files: list[Path]) -> subprocess.Popen[str]:
    """Run code in a process of its own; it finds the module as `store` and the arguments of `open` as `files`."""
    head = (
        "import sys, time, os\nfrom pathlib import Path\nfrom pellucid.data import store\n"
        "from pellucid.data.images import Decoding\nfiles = [Path(f) for f in sys.argv[1:]]\n"
    )
    command = [sys.executable, "-c", head + code, *map(str, files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_what_pillow_decodes(tmp_path, mode):
    files = images(tmp_path / "set")
    store = PixelStore.open(files, Decoding(mode))
    assert store.pixels.dtype == np.uint8 and not store.bad
    assert np.array_equal(store.pixels, decoded(files, mode))


def test_moments_are_exact(tmp_path):
    files = images(tmp_path / "set", n=4, size=(60, 80))
    store = PixelStore.open(files, COLOUR)
    flat = decoded(files).reshape(4, 3, -1).astype(np.float64)
    assert store.moments.dtype == np.int64
    assert np.array_equal(store.moments[..., 0], flat.sum(2))
    assert np.array_equal(store.moments[..., 1], (flat**2).sum(2))


def test_a_resized_set_may_be_of_any_sizes(tmp_path):
    files = images(tmp_path / "a", 3, (20, 30)) + images(tmp_path / "b", 3, (31, 17))
    store = PixelStore.open(files, Decoding("RGB", Resize((8, 6), "squish")))
    for file, pixels in zip(files, store.pixels, strict=True):
        with Image.open(file) as image:
            expected = np.asarray(image.resize((6, 8), Image.Resampling.BILINEAR))
        assert np.array_equal(pixels, expected.transpose(2, 0, 1))


def test_chunks_that_do_not_divide_the_set_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_FILES", 4)
    files = images(tmp_path / "set", n=11)
    assert np.array_equal(PixelStore.open(files, COLOUR).pixels, decoded(files))


def test_opening_again_decodes_nothing(tmp_path, monkeypatch):
    files = images(tmp_path / "set")
    first = PixelStore.open(files, COLOUR)
    monkeypatch.setattr(store_module, "_build", refuse)
    again = PixelStore.open(files, COLOUR)
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.moments, again.moments)


def test_relative_paths_are_the_same_files(tmp_path, monkeypatch):
    files = images(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert store_key([f.relative_to(tmp_path) for f in files], COLOUR) == store_key(files, COLOUR)


def test_the_key_changes_with_all_that_changes_the_pixels(tmp_path):
    files = images(tmp_path / "set")
    decodings = [
        COLOUR,
        GREY,
        *(Decoding("RGB", Resize(8, *method)) for method in (("crop",), ("squish",), ("pad", "zeros"))),
    ]
    decodings += [Decoding("RGB", Resize(9)), Decoding("RGB", Resize((8, 9)))]
    assert len({store_key(files, decoding) for decoding in decodings}) == len(decodings)
    keys = {store_key(files, COLOUR), store_key(files[::-1], COLOUR), store_key(files[:-1], COLOUR)}
    stat = files[2].stat()
    os.utime(files[2], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    keys.add(store_key(files, COLOUR))
    files[2].write_bytes(files[2].read_bytes() + b" ")
    os.utime(files[2], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    keys.add(store_key(files, COLOUR))
    files[2].unlink()
    keys.add(store_key(files, COLOUR))
    assert len(keys) == 6


def test_a_changed_image_is_decoded_anew(tmp_path):
    files = images(tmp_path / "set")
    before = np.array(PixelStore.open(files, COLOUR).pixels)
    Image.fromarray(np.full((7, 9, 3), 99, np.uint8)).save(files[1])
    after = PixelStore.open(files, COLOUR).pixels
    assert (after[1] == 99).all() and (before[1] != 99).any()
    assert np.array_equal(np.delete(after, 1, 0), np.delete(before, 1, 0))


@pytest.mark.parametrize("name", ["pixels.npy", "moments.npy", "store.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "truncated", "garbage", "null", "flipped"])
def test_a_damaged_store_is_built_again(tmp_path, name, damage):
    files = images(tmp_path / "set")
    PixelStore.open(files, COLOUR)
    file = folder_of(files) / name
    raw = file.read_bytes()
    flipped = raw[:-2] + bytes([raw[-2] ^ 0xFF]) + raw[-1:]
    texts = {"empty": b"", "truncated": raw[: len(raw) // 2], "garbage": b"\xffPK\x03" * 50, "null": b"null"}
    file.unlink()
    if damage != "gone":
        file.write_bytes((texts | {"flipped": flipped})[damage])
    store = PixelStore.open(files, COLOUR)
    assert np.array_equal(store.pixels, decoded(files))
    assert file.read_bytes() == raw and leftovers() == [folder_of(files).name]


def test_a_builder_killed_half_way_leaves_nothing_that_is_believed(tmp_path):
    files = images(tmp_path / "set")
    code = "def stop(*args):\n print('half', flush=True)\n time.sleep(600)\n"
    process = start(code + "store._checksum = stop\nstore.PixelStore.open(files, Decoding('RGB'))", files)
    with process:
        assert process.stdout and process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    assert len(leftovers()) == 1 and leftovers()[0].endswith(".tmp")
    assert np.array_equal(PixelStore.open(files, COLOUR).pixels, decoded(files))
    assert leftovers() == [folder_of(files).name]


def test_two_processes_that_want_the_same_store_build_it_once(tmp_path):
    files = images(tmp_path / "set")
    code = f"""
build = store._build
def slowly(*args):
    with open({str(tmp_path / "builds")!r}, "a") as log:
        log.write("built\\n")
    time.sleep(0.5)
    build(*args)
store._build = slowly
print("ready", flush=True)
while not os.path.exists({str(tmp_path / "go")!r}):
    time.sleep(0.01)
print(store.PixelStore.open(files, Decoding("RGB")).pixels.tobytes().hex())
"""
    processes = [start(code, files) for _ in range(2)]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    (tmp_path / "go").touch()
    answers = [process.communicate(timeout=HUNG_S) for process in processes]
    for process, (out, err) in zip(processes, answers, strict=True):
        assert process.returncode == 0, err
        assert bytes.fromhex(out) == decoded(files).tobytes()
    assert (tmp_path / "builds").read_text() == "built\n"


def test_a_disk_without_room_is_said_before_work_starts(tmp_path, monkeypatch):
    files = images(tmp_path / "set")
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(store_module, "_run", refuse)
    with pytest.raises(PellucidError) as caught:
        PixelStore.open(files, COLOUR)
    for part in (str(stores_folder()), "PELLUCID_HOME", "cache=False", "MB left"):
        assert part in str(caught.value)
    assert leftovers() == []


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["posix_fallocate", "fsync"])
def test_a_disk_that_fills_up_while_building_leaves_nothing(tmp_path, monkeypatch, place):
    files = images(tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr(os, place, full, raising=False)
        with pytest.raises(PellucidError) as caught:
            PixelStore.open(files, COLOUR)
    for part in (str(stores_folder()), "No space left", "PELLUCID_HOME", "cache=False"):
        assert part in str(caught.value)
    assert leftovers() == []
    assert np.array_equal(PixelStore.open(files, COLOUR).pixels, decoded(files))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_write_that_fails_in_a_decoder_is_reported(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 3)
    allocate = store_module._allocate

    def redirect(path, shape, dtype):
        offset = allocate(path, shape, dtype)
        if path.name == "pixels.npy":
            path.unlink()
            path.symlink_to("/dev/full")
        return offset

    monkeypatch.setattr(store_module, "_allocate", redirect)
    with pytest.raises(PellucidError, match=r"No space left on device.*PELLUCID_HOME"):
        PixelStore.open(images(tmp_path / "set"), COLOUR, workers)
    assert leftovers() == []


def test_a_home_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(PellucidError, match=r"cannot write the pixel store in .*file.home.*PELLUCID_HOME"):
        PixelStore.open(images(tmp_path / "set"), COLOUR)


def used_at(files: list[Path], seconds: int) -> Path:
    PixelStore.open(files, COLOUR)
    os.utime(folder_of(files), (seconds, seconds))
    return folder_of(files)


def test_the_least_recently_used_stores_go_first(tmp_path):
    sets = [images(tmp_path / name, seed=i) for i, name in enumerate("abc")]
    a, b, c = (used_at(files, seconds) for files, seconds in zip(sets, (1000, 3000, 2000), strict=True))
    size = sum(f.stat().st_size for f in a.iterdir())
    PixelStore.open(sets[0], COLOUR)  # using it makes it the youngest
    assert evict(budget_bytes=10 * size) == 0 and a.exists() and b.exists() and c.exists()
    assert evict(budget_bytes=2 * size + 50) >= size - 50
    assert a.exists() and b.exists() and not c.exists()
    evict(keep=b, budget_bytes=0)
    assert b.exists() and not a.exists()
    evict(budget_bytes=0)
    assert leftovers() == []


def test_building_makes_room_within_the_budget(tmp_path, monkeypatch):
    old, new = images(tmp_path / "old"), images(tmp_path / "new", seed=1)
    used_at(old, 1000)
    monkeypatch.setattr(store_module, "BUDGET_BYTES", 2000)
    PixelStore.open(new, COLOUR)
    assert leftovers() == [folder_of(new).name]


def test_decoder_processes_give_the_same_bytes(tmp_path, monkeypatch):
    files = images(tmp_path / "set", n=30)
    files[7].write_bytes(b"no image")
    here = PixelStore.open(files, COLOUR, workers=1)
    texts = {name: (folder_of(files) / name).read_bytes() for name in ("pixels.npy", "moments.npy")}
    meta = json.loads((folder_of(files) / "store.json").read_text())
    evict(budget_bytes=0)
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 10)
    monkeypatch.setattr(store_module, "CHUNK_FILES", 4)
    monkeypatch.setattr(store_module, "decode_rows", refuse)
    there = PixelStore.open(files, COLOUR, workers=3)
    assert {name: (folder_of(files) / name).read_bytes() for name in texts} == texts
    assert json.loads((folder_of(files) / "store.json").read_text()) == meta
    assert here.bad.keys() == there.bad.keys() == {7}


def test_a_decoder_process_that_dies_is_reported(tmp_path, monkeypatch):
    files = images(tmp_path / "set")
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 3)
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(PellucidError, match=r"decoder process ended with code -9; try workers=1"):
        PixelStore.open(files, COLOUR, workers=2)
    assert leftovers() == []


def test_damaged_files_are_listed_and_their_rows_are_zero(tmp_path):
    files = images(tmp_path / "set")
    files[1].write_bytes(files[1].read_bytes()[:80])
    files[4].write_bytes(b"")
    store = PixelStore.open(files, COLOUR)
    assert store.bad.keys() == {1, 4}
    assert store.bad[1].startswith(f"{files[1]}: damaged image") and store.bad[4] == f"{files[4]}: empty file"
    assert not store.pixels[[1, 4]].any() and not store.moments[[1, 4]].any()
    good = [0, 2, 3, 5]
    assert np.array_equal(store.pixels[good], decoded([files[i] for i in good]))
    assert PixelStore.open(files, COLOUR).bad == store.bad


def test_a_set_of_nothing_but_damage_is_refused(tmp_path):
    files = images(tmp_path / "set", n=12)
    for file in files:
        file.write_bytes(b"text")
    with pytest.raises(DataError) as caught:
        PixelStore.open(files, COLOUR)
    assert "none of the 12 images can be decoded" in str(caught.value)
    assert f"{files[0]}: not an image" in str(caught.value) and "… and 2 more" in str(caught.value)
    assert leftovers() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_images_of_different_sizes_are_named_with_the_remedy(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 3)
    files = images(tmp_path / "a", 4) + images(tmp_path / "b", 2, (7, 8))
    with pytest.raises(DataError) as caught:
        PixelStore.open(files, COLOUR, workers)
    for part in (*map(str, files[4:]), "7×8", "7×9", "item_tfms=Resize(128)", "--size 128"):
        assert part in str(caught.value)
    assert str(files[1]) not in str(caught.value) and leftovers() == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs file names of any bytes")
@pytest.mark.parametrize("workers", [1, 2])
def test_file_names_may_be_any_bytes(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(store_module, "FILES_PER_PROCESS", 1)
    files = images(tmp_path / "set", n=2)
    odd = [files[0].rename(tmp_path / os.fsdecode(b"caf\xe9.png")), files[1].rename(tmp_path / "子 猫\n.png")]
    assert np.array_equal(PixelStore.open(odd, COLOUR, workers).pixels, decoded(odd))


def test_few_large_files_are_shared_out_over_processes_too(tmp_path):
    files = [tmp_path / f"{i}.jpg" for i in range(4)]
    for file in files:
        file.write_bytes(bytes(5 << 20))
    assert [store_module._n_processes(files, workers) for workers in (1, 2, 8)] == [1, 2, 2]  # 20 MiB, 8 a process
    for file in files:
        file.write_bytes(b"small")
    assert store_module._n_processes(files, 8) == 1
    assert store_module._n_processes(files * 300, 2) == 2  # 1,200 files
    assert store_module._n_processes([tmp_path / "missing.jpg"], 8) == 1
