"""Finding and labelling items."""

from __future__ import annotations

from pathlib import Path

import pytest

from pellucid.data.items import RegexLabeller, csv_items, get_image_files, parent_label
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
    assert found(tmp_path) == ["a/1.png"]


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


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_text(text, encoding=encoding)
    return folder / "labels.csv"


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_csv_rows_are_relative_to_the_csv(tmp_path, header):
    file = write_csv(tmp_path, header + 'a/1.png,cat\n\n"b, c/2.jpg", dog \n/far/3.PNG,cat,ignored\n')
    expected = [(tmp_path / "a/1.png", "cat"), (tmp_path / "b, c/2.jpg", "dog"), (Path("/far/3.PNG"), "cat")]
    assert csv_items(file) == expected


def test_csv_files_written_by_a_spreadsheet_are_read(tmp_path):
    file = write_csv(tmp_path, "été.png,ça\r\n2.png,là\r\n", "utf-8-sig")
    assert csv_items(file) == [(tmp_path / "été.png", "ça"), (tmp_path / "2.png", "là")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows of path,label"),
        ("path,label\n", "no rows of path,label"),
        ("path,label\n1.png,cat\n2.png\n", "line 3 has no label"),
        ("1.png,cat\n2.png, \n", "line 2 has no label"),
        ("1.png;cat\n2.png;dog\n", "no label; each row is path,label"),
    ],
)
def test_a_csv_without_labels_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        csv_items(write_csv(tmp_path, text))
    assert str(tmp_path / "labels.csv") in str(caught.value)


def test_a_csv_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read as CSV"):
        csv_items(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00\xd8\x99")
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read as CSV"):
        csv_items(tmp_path / "labels.csv")
