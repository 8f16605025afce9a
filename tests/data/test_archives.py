"""Untrusted archives."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.data import archives
from pellucid.data.catalogue import URLs, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.errors import DataError, UsageError

ENDINGS = ["zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"]
SETS = {"zoo/cat/1.txt": b"meow", "zoo/dog/2.txt": b"woof"}
LINK, HARD, FOLDER, FIFO = "link to ", "hard link to ", "folder", "fifo"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def pack(file: Path, contents: dict[str, bytes | str] | Iterable[tuple[str, bytes | str]]) -> str:
    """Write an archive; a string stands for something else than a file. Returns its address."""
    pairs = list(contents.items() if isinstance(contents, dict) else contents)
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in pairs:
                info = zipfile.ZipInfo(name)
                info.filename = name  # ZipInfo would turn what it takes for separators
                if isinstance(data, str) and data.startswith(LINK):
                    info.external_attr = (stat.S_IFLNK | 0o777) << 16
                    data = data.removeprefix(LINK)
                zipped.writestr(info, b"" if data == FOLDER else data, zipfile.ZIP_DEFLATED)
        return file.as_uri()
    kind = {".gz": "gz", ".tgz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(file.suffix, "")
    with tarfile.open(file, f"w:{kind}") as tarred:  # type: ignore[call-overload]
        for name, data in pairs:
            member = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
                tarred.addfile(member, io.BytesIO(data))
                continue
            if data.startswith((LINK, HARD)):
                member.type = tarfile.SYMTYPE if data.startswith(LINK) else tarfile.LNKTYPE
                member.linkname = data.removeprefix(LINK if data.startswith(LINK) else HARD)
            else:
                member.type, member.mode = {FOLDER: tarfile.DIRTYPE, FIFO: tarfile.FIFOTYPE}[data], 0o555
            tarred.addfile(member)
    return file.as_uri()


def tree(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def refused(address: str, home: Path, said: str, **options) -> None:
    """Not laid out, with this message, and nothing of it stays anywhere."""
    before = set(home.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        untar_data(address, **options)
    assert said in str(caught.value) and str(caught.value).startswith(address)
    new = {p for p in set(home.parent.rglob("*")) - before if p not in (home, home / "data")}
    assert {p.suffix for p in new} <= {".lock"}


@pytest.fixture
def server(tmp_path):
    """The address of `tmp_path` on a web server of this machine."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "name",
    [
        r"../evil",
        r"zoo/../../evil",
        r"zoo/../evil",
        r"..",
        r"a/..",
        r"/evil",
        r"//evil",
        r"C:/evil",
        r"c:evil",
        r"..\evil",
        r"zoo\..\..\evil",
        r"\evil",
        r"C:\evil",
        r"\\host\share\evil",
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path, home, ending, name):
    address = pack(tmp_path / f"zoo.{ending}", [*SETS.items(), (name, b"evil"), ("zoo/3.txt", b"")])
    refused(address, home, "damaged or unsafe archive (the name ")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_backslashes_are_folders(tmp_path, ending):
    contents = {"zoo\\": FOLDER, "zoo\\cat\\1.txt": b"meow", "zoo\\dog/2.txt": b"woof"}
    if ending != "zip":
        contents.pop("zoo\\")
    assert tree(untar_data(pack(tmp_path / f"zoo.{ending}", contents))) == {"cat/1.txt": b"meow", "dog/2.txt": b"woof"}


CLUTTER = ["__MACOSX/zoo/cat/._1.txt", "__MACOSX/._zoo", "._zoo", ".DS_Store", "Thumbs.db", "zoo/.DS_Store"]
CLUTTER += ["zoo/cat/._1.txt", "zoo/cat/thumbs.db", "zoo/cat/desktop.ini", "zoo/@eaDir/1.txt/SYNOPHOTO_THUMB_M.jpg"]


@pytest.mark.parametrize("start", ["", "./"])
@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_what_systems_leave_behind_does_not_change_what_is_found(tmp_path, ending, start):
    members = [(f"{start}{name}", b"x") for name in CLUTTER] + [(f"{start}{name}", data) for name, data in SETS.items()]
    folder = untar_data(pack(tmp_path / f"zoo.{ending}", members))
    assert tree(folder) == {"cat/1.txt": b"meow", "dog/2.txt": b"woof"}


def test_an_archive_of_a_mac_is_split_as_its_folders_say(tmp_path):
    files: dict[str, bytes | str] = {"./._zoo": b"x", "./zoo": FOLDER, "./zoo/._train": b"x"}
    for i, (side, n) in enumerate((("train", 4), ("valid", 2))):
        for label in ("cat", "dog"):
            for j in range(n):
                png = io.BytesIO()
                Image.new("L", (4, 4), 16 * i + 4 * j + (label == "dog")).save(png, "png")
                files |= {f"./zoo/{side}/{label}/{j}.png": png.getvalue(), f"./zoo/{side}/{label}/._{j}.png": b"x"}
    folder = untar_data(pack(tmp_path / "zoo.tar", files))
    dls = ImageDataLoaders.from_folder(folder, bs=2, device="cpu")
    assert [{file.parts[-3] for file in dl.items} for dl in dls] == [{"train"}, {"valid"}]
    assert (dls.train.n, dls.valid.n) == (8, 4)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "contents", [{}, {"zoo/": FOLDER}, {"__MACOSX/._a": b"x", ".DS_Store": b"x"}], ids=["nothing", "folder", "clutter"]
)
def test_an_archive_without_files_is_an_error(tmp_path, home, ending, contents):
    refused(pack(tmp_path / f"zoo.{ending}", contents), home, "the archive holds no files")


@pytest.mark.parametrize("ending", ENDINGS)
def test_unpacked_size_and_number_are_limited(tmp_path, home, ending):
    address = pack(tmp_path / f"zoo.{ending}", {f"zoo/{i}.bin": bytes(1000) for i in range(9)})
    refused(address, home, "more than 8,999 bytes when unpacked; max_bytes allows more", max_bytes=8999)
    refused(address, home, "more than 8 files and folders; max_files allows more", max_files=8)
    assert len(tree(untar_data(address, max_bytes=9000, max_files=9))) == 9


@pytest.mark.parametrize("ending", ["zip", "tgz", "tar.bz2", "tar.xz"])
def test_what_swells_more_than_pictures_can_is_refused_by_default(tmp_path, home, ending, monkeypatch):
    address = pack(tmp_path / f"zoo.{ending}", {"zoo/bomb": bytes(3_000_000)})
    monkeypatch.setattr(archives, "ALWAYS_BYTES", 100_000)
    refused(address, home, "bytes when unpacked; max_bytes allows more")
    assert tree(untar_data(address, max_bytes=3_000_000)) == {"bomb": bytes(3_000_000)}


def test_a_zip_whose_sizes_lie_is_refused(tmp_path, home):
    address = pack(tmp_path / "zoo.zip", {"zoo/1.bin": bytes(5000)})
    raw = (tmp_path / "zoo.zip").read_bytes()
    for true, lie in ((5000, 50), (5000, 50_000)):
        forged = raw.replace(true.to_bytes(4, "little"), lie.to_bytes(4, "little"))
        (tmp_path / "zoo.zip").write_bytes(forged)
        refused(address, home, "damaged or unsafe archive")


def test_a_file_with_a_password_is_refused(tmp_path, home):
    address = pack(tmp_path / "zoo.zip", SETS)
    raw = bytearray((tmp_path / "zoo.zip").read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(start) + offset] |= 1
    (tmp_path / "zoo.zip").write_bytes(raw)
    refused(address, home, "password")


def test_a_tar_that_is_cut_between_two_files_is_damaged(tmp_path, home):
    address = pack(tmp_path / "zoo.tar", {f"zoo/{i}.bin": bytes(100) for i in range(9)})
    raw = (tmp_path / "zoo.tar").read_bytes()
    (tmp_path / "zoo.tar").write_bytes(raw[: 1024 * 5])
    refused(address, home, "does not end where an archive ends")
    (tmp_path / "zoo.tar").write_bytes(raw[:4096] + b"\xff" * 512 + raw[4608:])  # the header of the fifth
    refused(address, home, "does not end where an archive ends")


def test_a_tar_of_read_only_folders_can_be_deleted(tmp_path):
    folder = untar_data(pack(tmp_path / "zoo.tar", {"zoo": FOLDER, "zoo/cat": FOLDER, "zoo/cat/1.txt": b"meow"}))
    assert folder.stat().st_mode & 0o200 and (folder / "cat").stat().st_mode & 0o200


def test_links_inside_stay_links(tmp_path):
    contents = {"zoo/b": LINK + "a/1.txt", "zoo/a/1.txt": b"meow", "zoo/c/2.txt": HARD + "zoo/a/1.txt"}
    contents |= {"zoo/d": LINK + "a", "zoo/c/3.txt": LINK + "../a/1.txt"}
    folder = untar_data(pack(tmp_path / "zoo.tar", contents))
    expected = {"b", "a/1.txt", "c/2.txt", "c/3.txt"}
    assert tree(folder) == dict.fromkeys(expected, b"meow") and os.readlink(folder / "d") == "a"
    assert tree(untar_data(pack(tmp_path / "zoo.zip", {"zoo/b": LINK + "1.txt", "zoo/1.txt": b"meow"}))) == {
        "b": b"meow",
        "1.txt": b"meow",
    }


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("zoo/link", LINK + "/etc/passwd"),
        ("zoo/link", LINK + "../../secret"),
        ("link", LINK + "../secret"),
        ("zoo/link", LINK + "nowhere"),
        ("zoo/link", LINK + "."),
        ("zoo/link", LINK + "link"),
        ("zoo/link", HARD + "../secret"),
        ("zoo/link", HARD + "nowhere"),
        ("zoo/cat", LINK + "dog"),
        ("zoo/dev", FIFO),
    ],
)
def test_other_links_and_devices_are_refused(tmp_path, home, name, target):
    (tmp_path / "secret").write_text("secret")
    refused(pack(tmp_path / "zoo.tar", [*SETS.items(), (name, target)]), home, "damaged or unsafe archive")


def test_nothing_is_written_through_a_link(tmp_path, home):
    (tmp_path / "outside").mkdir()
    for name in ("zoo/link/evil", "zoo/link"):
        members = [*SETS.items(), ("zoo/link", LINK + str(tmp_path / "outside")), (name, b"evil")]
        refused(pack(tmp_path / "zoo.tar", members), home, "damaged or unsafe archive")
    chain = [*SETS.items(), ("zoo/up", LINK + "cat"), ("zoo/further", LINK + "up/../../.."), ("zoo/further/evil", b"")]
    refused(pack(tmp_path / "zoo.tar", chain), home, "damaged or unsafe archive")
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize(
    "members",
    [[("zoo", b"file"), ("zoo/1.txt", b"")], [("zoo/1.txt", b""), ("zoo", b"file")], [("a", b""), ("a", FOLDER)]],
)
def test_a_name_of_two_things_is_refused(tmp_path, home, members):
    refused(pack(tmp_path / "zoo.tar", members), home, "is two things in it")


def test_a_name_longer_than_names_can_be_is_refused(tmp_path, home):
    refused(pack(tmp_path / "zoo.tar", {"zoo/" + "é" * 130: b""}), home, "longer than a file's can be")


@pytest.mark.parametrize("ending", ["zip", "tar.xz"])
@pytest.mark.parametrize("name", ["a/" * 3000 + "1.txt", "a/" * 2000 + "1.txt", ("b" * 200 + "/") * 90 + "1.txt"])
def test_folders_too_deep_for_a_path_are_refused(tmp_path, home, ending, name):
    refused(pack(tmp_path / f"zoo.{ending}", SETS | {f"zoo/{name}": b""}), home, "archive")


@pytest.mark.parametrize("target", ["\0" * (4 << 20), "b" * 5000, "../" * 1000, "/" + "b" * 4000])
def test_what_a_link_leads_to_is_neither_read_nor_shown_whole(tmp_path, target):
    pack(tmp_path / "zoo.zip", SETS | {"zoo/link": LINK + target})
    tracemalloc.start()
    with pytest.raises(DataError) as caught:
        archives.unpack(tmp_path / "zoo.zip", make(tmp_path / "out"), max_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 400 and peak < 3 << 20


SPARSE = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"  # a map of the file's holes stands before its data


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ("tar", tarfile.XHDTYPE),
        ("tar.gz", tarfile.XGLTYPE),
        ("tar.bz2", tarfile.GNUTYPE_LONGNAME),
        ("tar.xz", tarfile.XHDTYPE),
        ("tar", "sparse"),
    ],
)
def test_a_header_that_fills_the_memory_is_refused(tmp_path, ending, kind):
    packing = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}.get(ending.removeprefix("tar."), open)
    with packing(tmp_path / f"zoo.{ending}", "wb") as file:  # type: ignore[operator]
        header = tarfile.TarInfo("x")
        header.type, header.size = (tarfile.XHDTYPE, len(SPARSE)) if kind == "sparse" else (kind, 24 << 20)
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        if kind == "sparse":
            file.write(SPARSE.ljust(512, b"\0") + tarfile.TarInfo("zoo/1.txt").tobuf() + b"9999999\n")
        for _ in range(24):
            file.write((b"0\n" if kind == "sparse" else b"\0\0") * (1 << 19))
        file.write(tarfile.TarInfo("zoo/1.txt").tobuf() + bytes(10240))
    tracemalloc.start()
    with pytest.raises(DataError, match="a header of more than 262,144 bytes"):
        archives.unpack(tmp_path / f"zoo.{ending}", make(tmp_path / "out"), max_bytes=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_long_names_and_attributes_are_no_fault(tmp_path):
    name = "zoo/" + "/".join(["é" * 100] * 8)
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "zoo.tar", "w", format=kind) as tarred:
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 4, {"SCHILY.xattr.user.note": "n" * 60_000}
            tarred.addfile(member, io.BytesIO(b"meow"))
        folder = make(tmp_path / str(kind))
        archives.unpack(tmp_path / "zoo.tar", folder)
        assert tree(folder) == {name: b"meow"}


@pytest.mark.parametrize("ending", ["zip", "tar", "tgz"])
def test_whatever_the_bytes_are_it_is_unpacked_or_refused(tmp_path, ending):
    archive = tmp_path / f"zoo.{ending}"
    pack(archive, SETS | {"zoo/link": LINK + "cat/1.txt"})
    raw, rng = archive.read_bytes()[:5120], np.random.default_rng(0)
    outcomes = set()
    for i in range(120):
        harmed = bytearray(raw)
        for position in rng.integers(0, len(raw), rng.integers(1, 4)):
            harmed[position] = rng.integers(256)
        archive.write_bytes(harmed)
        (tmp_path / str(i)).mkdir()
        try:
            archives.unpack(archive, tmp_path / str(i))
            outcomes.add("unpacked")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"unpacked", "refused"}
    assert {p.name for p in tmp_path.iterdir()} == {f"zoo.{ending}", *map(str, range(120))}


@pytest.mark.parametrize("force", [False, True])
def test_a_checksum_is_checked_also_when_the_set_is_laid_out(tmp_path, home, force):
    address = pack(tmp_path / "zoo.zip", SETS)
    digest = hashlib.sha256((tmp_path / "zoo.zip").read_bytes()).hexdigest()
    folder = untar_data(address)
    assert untar_data(address, sha256=digest, force=force) == untar_data(address, sha256=digest.upper()) == folder
    with pytest.raises(DataError, match="does not match" if force else f"sha256='{digest}', not '0+'; force=True"):
        untar_data(address, sha256="0" * 64, force=force)
    assert tree(folder) == {"cat/1.txt": b"meow", "dog/2.txt": b"woof"}


def test_a_set_whose_checksum_is_not_known_is_downloaded_again_to_check_it(tmp_path, home):
    address = pack(tmp_path / "zoo.zip", SETS)
    digest = hashlib.sha256((tmp_path / "zoo.zip").read_bytes()).hexdigest()
    folder = untar_data(address)
    next((home / "data").glob("*.sha256")).unlink()  # as laid out by earlier versions
    with pytest.raises(DataError, match="does not match"):
        untar_data(address, sha256="0" * 64)
    (folder / "mine.txt").touch()
    assert not (untar_data(address, sha256=digest) / "mine.txt").exists()


@pytest.mark.parametrize("url", [URLs.MNIST, URLs.MNIST_SAMPLE])
def test_a_checksum_of_a_set_that_is_not_downloaded_is_refused(url):
    with pytest.raises(UsageError, match="leave sha256 out"):
        untar_data(url, sha256="0" * 64)


@pytest.mark.parametrize("sha256", ["", "abc", "0" * 63, "sha256:" + "0" * 64, "g" * 64])
def test_what_is_no_checksum_is_refused(tmp_path, sha256):
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        untar_data(pack(tmp_path / "zoo.zip", SETS), sha256=sha256)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>404</html>", b"\n <html lang='en'>Please log in</html>"])
@pytest.mark.parametrize("ending", ["zip", "tgz"])
def test_a_web_page_is_called_one_and_no_checksum_of_it_is_offered(tmp_path, home, server, page, ending, capsys):
    (tmp_path / f"zoo.{ending}").write_bytes(page)
    refused(f"{server}/zoo.{ending}", home, "a web page came, not an archive")
    assert "sha256" not in capsys.readouterr().out
