"""Finding and labelling items."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pellucid.data.items import RegexLabeller, get_image_files, list_images, parent_label
from pellucid.errors import DataError, UsageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, **options) -> list[str]:
    return [file.relative_to(root).as_posix() for file in get_image_files(root, **options)]


def test_image_files_come_sorted_whatever_order_they_were_made_in(tmp_path):
    touch(tmp_path, "b/2.png", "a/10.jpg", "a/9.JPEG", "b/1.webp", "a/10.tiff")
    assert found(tmp_path) == ["a/10.jpg", "a/10.tiff", "a/9.JPEG", "b/1.webp", "b/2.png"]
    assert get_image_files(str(tmp_path))[0] == tmp_path / "a" / "10.jpg"


def test_hidden_files_folders_and_other_formats_are_left_out(tmp_path):
    touch(tmp_path, "a/1.png", "a/.2.png", ".git/3.png", "a/.cache/4.png", "a/5.txt", "a/png", "a/6.png.bak")
    with pytest.warns(UserWarning, match=r"left out 3 files that are no images by their endings \(.*\)") as warned:
        assert found(tmp_path) == ["a/1.png"]
    assert all(part in str(warned[0].message) for part in (".txt 1", "no ending 1", ".bak 1", str(tmp_path)))


def test_a_hidden_folder_named_on_purpose_is_searched(tmp_path):
    touch(tmp_path, ".mine/a/1.png")
    assert found(tmp_path / ".mine") == ["a/1.png"]


def test_only_the_folder_itself_without_recursion(tmp_path):
    touch(tmp_path, "1.png", "a/2.png", "a/b/3.png")
    assert found(tmp_path, recurse=False) == ["1.png"]
    assert found(tmp_path, recurse=False, folders=["a"]) == ["a/2.png"]


def test_only_the_named_folders_in_the_order_given(tmp_path):
    touch(tmp_path, "valid/1.png", "train/a/2.png", "test/3.png", "4.png")
    assert found(tmp_path, folders=["train", "valid"]) == ["train/a/2.png", "valid/1.png"]


def test_linked_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path / "set") == ["cats/1.png"]


def test_a_link_back_up_does_not_repeat_images(tmp_path):
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    assert found(tmp_path) == ["a/1.png"]


def test_files_left_out_are_counted_by_ending(tmp_path):
    touch(tmp_path, "a/1.png", *(f"a/{i}.PSD" for i in range(3)), "b/1.psd", "b/2.txt", "c.md")
    listing = list_images(tmp_path)
    assert listing.ignored == {".psd": 4, ".txt": 1, ".md": 1}
    assert listing.emptied == {tmp_path / "b": ".psd 1, .txt 1"}
    with pytest.warns(UserWarning, match=rf"6 files .*\(.psd 4, .*\); {tmp_path}/b has no others"):
        assert found(tmp_path) == ["a/1.png"]


def test_a_folder_of_many_odd_files_is_warned_of_in_a_few_lines(tmp_path):
    touch(tmp_path, "a/1.png", *(f"runs/{n:03}/{i}.x{i}" for n in range(200) for i in range(20)))
    for n in range(50):
        (tmp_path / "a" / f"link{n}").symlink_to(tmp_path / "runs")
        (tmp_path / "a" / f"empty{n}").mkdir()
    with pytest.warns(UserWarning, match=r"^\S+: left out 4,000 files .*; convert what belongs to the set$") as warned:
        assert found(tmp_path) == ["a/1.png"]
    said = str(warned[0].message)
    assert re.search(rf"\((\.x\d+ 200, ){{5}}\.x\d+ 200 and 14 more\); {tmp_path}/runs/000, ", said)
    assert f"{tmp_path}/runs/002 and 197 more have no others; " in said
    assert "listed once; 44 more such links; empty folders: " in said
    assert len(said.replace(str(tmp_path), "")) < 700


def test_what_systems_leave_behind_is_not_seen(tmp_path):
    touch(tmp_path, "a/1.png", "__MACOSX/a/2.png", "a/._1.png", "a/Thumbs.db", "a/.DS_Store", "a/desktop.ini")
    touch(tmp_path, "a/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/3.png", ".ipynb_checkpoints/4.png")
    assert found(tmp_path) == ["a/1.png"]  # and no warning


def link(folder: Path, **links: str) -> None:
    for name, target in links.items():
        (folder / name).symlink_to(target)


def test_folders_that_link_to_each_other_are_listed_once(tmp_path):
    names = ["a", "b", "c"]
    touch(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(2)))
    for name in names:
        link(tmp_path / name, **{f"to_{other}": f"../{other}" for other in names if other != name})
    with pytest.warns(UserWarning) as warned:
        assert found(tmp_path) == [f"{name}/{i}.png" for name in names for i in range(2)]
    assert str(warned[0].message).count("listed once") == 6


@pytest.mark.parametrize("n", [2, 5])
def test_folders_full_of_links_to_their_parents_are_listed_once(tmp_path, n):
    touch(tmp_path, *(f"{i}/x.png" for i in range(n)))
    for i in range(n):
        link(tmp_path / str(i), up="..", here=".")
    assert found(tmp_path) == [f"{i}/x.png" for i in range(n)]  # and no warning: nothing else could be meant


def test_a_folder_keeps_its_own_name_whatever_links_lead_to_it(tmp_path):
    touch(tmp_path, "zoo/1.png", "elsewhere/2.png")
    link(tmp_path, animals="zoo")
    with pytest.warns(UserWarning, match="animals leads to .*zoo, listed once"):
        assert found(tmp_path) == ["elsewhere/2.png", "zoo/1.png"]


def test_two_links_to_one_folder_outside_are_one(tmp_path):
    touch(tmp_path, "outside/1.png", "set/b/2.png")
    link(tmp_path / "set", a="../outside", c="../outside", d="a")
    with pytest.warns(UserWarning, match=r"set/c leads to .*set/a, listed once; .*set/d leads to .*set/a"):
        assert found(tmp_path / "set") == ["a/1.png", "b/2.png"]


def test_a_folder_named_twice_is_listed_once(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    with pytest.warns(UserWarning, match="listed once"):
        assert found(tmp_path, folders=["a", "b", "a"]) == ["a/1.png", "b/2.png"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_any_tangle_of_links_ends_and_lists_each_image_once(tmp_path, links):
    with tempfile.TemporaryDirectory(dir=tmp_path) as home:
        root = Path(home)
        folders = [root / path for path in ("a", "a/b", "a/b/c", "d", "d/e", "f")]
        for folder in folders:
            folder.mkdir()
            (folder / f"{folder.name}.png").touch()
        for number, (inside, target) in enumerate(links):
            (folders[inside] / f"0{number}").symlink_to(folders[target])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert sorted(get_image_files(root)) == sorted(folder / f"{folder.name}.png" for folder in folders)


def test_a_link_to_no_folder_is_an_error_and_one_to_no_file_is_left_to_the_decoder(tmp_path):
    touch(tmp_path, "a/1.png")
    link(tmp_path / "a", **{"2.png": "gone.png"})
    assert found(tmp_path) == ["a/1.png", "a/2.png"]
    link(tmp_path, cats="/gone/cats")
    with pytest.raises(DataError, match="cats: a link that leads nowhere"):
        found(tmp_path)


NOBODY = """
import os, sys
from pellucid.data.items import get_image_files
os.seteuid(65534)
try:
    print(list(get_image_files(sys.argv[1])))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_cannot_be_read_is_an_error(mode):
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders are closed to others
        os.chmod(home, 0o755)
        touch(Path(home), "a/1.png", "b/2.png", "b/c/3.png")
        os.chmod(Path(home) / "b", mode)
        done = subprocess.run([sys.executable, "-c", NOBODY, home], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"DataError {home}/b") and "cannot be read (Permission denied)" in done.stdout


def test_a_missing_folder_and_a_file_are_told_apart(tmp_path):
    touch(tmp_path, "1.png")
    with pytest.raises(DataError, match="nowhere: no such folder"):
        get_image_files(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"1\.png: is a file, not a folder"):
        get_image_files(tmp_path / "1.png")
    with pytest.raises(DataError, match="trian: no such folder"):
        get_image_files(tmp_path, folders=["trian"])


@pytest.mark.parametrize("path", [Path("set/cat/1.png"), "set/cat/1.png"])
def test_the_parent_folder_is_the_label(path):
    assert parent_label(path) == "cat"
    assert parent_label(Path("1.png")) == ""


def test_regex_labels():
    label = RegexLabeller(r"([a-z_]+)_\d+\.jpg$")
    assert label("pets/great_dane_12.jpg") == "great_dane"
    assert label(Path("pets/pug_1.jpg")) == "pug"
    with pytest.raises(DataError, match=r"pug\.png: the label pattern .* does not occur"):
        label("pug.png")


def test_regex_labels_match_from_the_start_when_asked():
    assert RegexLabeller(r"(\d)")("ab1") == "1"
    with pytest.raises(DataError, match="ab1"):
        RegexLabeller(r"(\d)", match=True)("ab1")
    assert RegexLabeller(r"..(\d)", match=True)("ab1") == "1"


def test_a_regex_without_a_group_is_refused():
    with pytest.raises(UsageError, match="no group: put the label in parentheses"):
        RegexLabeller(r"\d+")
