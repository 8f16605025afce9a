"""Label files as people write them: what is read is right, and what could be read in two ways is refused."""

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.data.factories import ImageDataLoaders
from pellucid.data.labels import csv_items
from pellucid.errors import DataError, UsageError


def write_csv(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    (folder / "labels.csv").write_text(text, encoding=encoding)
    return folder / "labels.csv"


@pytest.mark.parametrize("header", ["", "path,label\n"])
def test_csv_rows_are_relative_to_the_csv(tmp_path, header):
    file = write_csv(tmp_path, header + 'a/1.png,cat\n\n"b, c/2.jpg", dog \n/far/3.PNG,cat\n')
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
        ("1.png|cat\n2.png|dog\n", "line 1 names no image: '1.png|cat'"),
        ("1.png\n2.png\n", "line 1 has no label; each row is path,label"),
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


def read(folder: Path, text: str, encoding: str = "utf-8", **options) -> list[tuple[str, str]]:
    items = csv_items(write_csv(folder, text, encoding), **options)
    return [(file.relative_to(folder).as_posix(), label) for file, label in items]


def refused(folder: Path, text: str, *said: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, text, **options)
    missing = [part for part in (str(folder / "labels.csv"), *said) if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


CAT_DOG = [("1.png", "cat"), ("2.png", "dog")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("header", [True, False])
def test_every_dialect_of_spreadsheets_is_read(tmp_path, delimiter, encoding, end, quoted, header):
    rows = [["path", "label"]] * header + [["1.png", "cat"], ["2.png", "dog"]]
    cell = '"{}"' if quoted else "{}"
    text = end.join(delimiter.join(map(cell.format, row)) for row in rows) + end
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    assert [(file.name, label) for file, label in csv_items(tmp_path / "labels.csv")] == CAT_DOG


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=12)
NAMES = NAMES.map(str.strip).filter(bool)


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=5),
    delimiter=st.sampled_from(",;\t"),
    header=st.booleans(),
)
def test_what_the_csv_module_wrote_is_read_again(tmp_path_factory, rows, delimiter, header):
    folder = tmp_path_factory.mktemp("labels")
    rows = [(f"{i} {name}.png", label) for i, (name, label) in enumerate(rows)]
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([("file", "label")] * header + rows)
    file = folder / "labels.csv"
    file.write_bytes(out.getvalue().encode())
    assert csv_items(file, delimiter=delimiter) == [(folder / name, label) for name, label in rows]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_characters_that_other_programs_take_for_line_ends_are_none(tmp_path, mark):
    assert read(tmp_path, f"1.png,c{mark}at\n2{mark}.png,dog\n") == [("1.png", f"c{mark}at"), (f"2{mark}.png", "dog")]


def test_spaces_and_line_ends_inside_quotes(tmp_path):
    assert read(tmp_path, '1.png , cat\n "2\n.png", "dog"\n "a, b.png", "d ""og"""\n') == [
        ("1.png", "cat"),
        ("2\n.png", "dog"),
        ("a, b.png", 'd "og"'),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('1.png,cat\n"2.png,dog\n3.png,cat\n', "line 2 cannot be read as CSV"),
        ('1.png,cat\n2.png,"dog\n3.png,cat\n', "line 2 cannot be read as CSV"),
        ('1.png,cat\n"2.png,dog\n3.png","cat\n', "line 2 cannot be read as CSV"),
        ('1.png,cat\n2.png,"dog\n3.png,cat"\n4.png,dog\n', "the label in line 2 has line ends in it"),
        ('1.png,cat\n"2.png"x,dog\n', "line 2 cannot be read as CSV"),
        (f"1.png,cat\n2.png,{'x' * 131_073}\n", "line 2 cannot be read as CSV (field larger than field limit"),
        ('\n\n1.png,cat\n"2\n.png",dog\n3.png,\n', "line 6 has no label"),
    ],
)
def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path, text, said):
    refused(tmp_path, text, said)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.png,cat\n2.png,dog\n", CAT_DOG),
        ("Image_Path,Class Name\n1.png,cat\n2.png,dog\n", CAT_DOG),
        ("fichier,espèce\n1.png,cat\n2.png,dog\n", CAT_DOG),
        ("label,path\ncat,1.png\ndog,2.png\n", CAT_DOG),
        ("cat,1.png\ndog,2.png\n", CAT_DOG),
        ("1.JPE,cat\n2.png,dog\n", [("1.JPE", "cat"), ("2.png", "dog")]),
        ("path,label,,\n1.png,cat,,\n2.png,dog,,\n", CAT_DOG),
        ("id,breed\n1.png,cat\n2.png,dog\n", CAT_DOG),
        ("file,age,label\n1.png,3,cat\n2.png,7,dog\n", CAT_DOG),
        ("age,category,filename\n3,cat,1.png\n7,dog,2.png\n", CAT_DOG),
        ("number,image,label,source\n1,1.png,cat,x.png\n2,2.png,dog,y.png\n", CAT_DOG),
    ],
)
def test_header_and_columns_are_told_by_names_and_contents(tmp_path, text, expected):
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,age,species\n1.png,3,cat\n2.png,7,dog\n", ("'age', 'species'", "label_col='species'", "--label-col")),
        ("1.png,3,cat\n2.png,7,dog\n", ("column 1, column 2", "label_col=2")),
        ("file,label,class\n1.png,3,cat\n2.png,7,dog\n", ("'label', 'class'",)),
        ("a,b,label\n1.png,2.png,cat\n3.png,4.png,dog\n", ("'a' or 'b'", "fn_col", "--path-col")),
        ("file,label\n1.png,cat\n2.png,dog,x\n", ("line 3 has 3 columns, the first row 2",)),
        ("b, c/1.png,cat\n2.png,dog\n", ("the label may be in column 0, column 2",)),
        ("1.png,cat\nb, c/2.png,dog\n", ("line 2 has 3 columns, the first row 2",)),
        ("id,breed\n0001,cat\n0002,dog\n", ("line 2 names no image: '0001', 'cat'", "--suffix .jpg", "--image-folder")),
        ("0001,cat\n0002,dog\n0003,cat\n", ("line 1 names no image: '0001', 'cat'",)),
        ("path;species,common\n1.png;cat,dog\n", ("',' or ';'", "delimiter=")),
        ("1.png,cat\n2.png,dog\n1.png,dog\n", ("1.png is 'cat' in line 1 and 'dog' in line 3",)),
        (",cat\n2.png,dog\n", ("line 1 names no image",)),
        ("1.png,cat\n,dog\n", ("line 2 has no path",)),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path, text, said):
    refused(tmp_path, text, *said)


@pytest.mark.parametrize(
    "columns",
    [
        *({"label_col": "species"}, {"label_col": 2}, {"label_col": "2"}),
        *({"label_col": "species", "fn_col": "file"}, {"label_col": 2, "fn_col": 0}),
    ],
)
def test_columns_are_taken_by_name_or_number(tmp_path, columns):
    assert read(tmp_path, "file,age,species\n1.png,3,cat\n2.png,7,dog\n", **columns) == CAT_DOG
    if "species" not in columns.values():
        assert read(tmp_path, "1.png,3,cat\n2.png,7,dog\n", **columns) == CAT_DOG


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label_col": "specie"}, "no column is 'specie'; there are 'file', 'age', 'species'"),
        ({"label_col": 3}, "no column is 3"),
        ({"label_col": -1}, "no column is -1"),
        ({"label_col": "species", "fn_col": "age"}, "line 2 names no image"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, columns, said):
    refused(tmp_path, "file,age,species\n1.png,3,cat\n2.png,7,dog\n", said, **columns)


def test_columns_that_were_chosen_by_their_names_are_said(tmp_path, capsys):
    read(tmp_path, "file,age,label\n1.png,3,cat\n2.png,7,dog\n")
    said = f"{tmp_path / 'labels.csv'}: files from 'file', labels from 'label'; not used: 'age'\n"
    assert capsys.readouterr().out == said
    read(tmp_path, "path,label\n1.png,cat\n")
    assert capsys.readouterr().out == ""


@pytest.fixture
def kaggle(tmp_path) -> Path:
    """`train/0000.jpg` to `train/0009.jpg` and `labels.csv` of id,breed."""
    (tmp_path / "train").mkdir()
    rows = [(f"{i:04}", "cat" if i % 2 else "dog") for i in range(10)]
    for name, _ in rows:
        Image.new("L", (4, 4), int(name)).save(tmp_path / "train" / f"{name}.jpg")
    (tmp_path / "labels.csv").write_text("\n".join(["id,breed", *(",".join(row) for row in rows)]))
    return tmp_path


def test_ids_without_an_ending(kaggle):
    expected = [(kaggle / "train" / f"{i:04}.jpg", "cat" if i % 2 else "dog") for i in range(10)]
    assert csv_items(kaggle / "labels.csv", folder="train", suff=".jpg") == expected
    lines = (kaggle / "labels.csv").read_text().splitlines()
    (kaggle / "labels.csv").write_text("\n".join(lines[1:]))  # without a header the first row is data
    assert csv_items(kaggle / "labels.csv", folder="train", suff=".jpg") == expected
    (kaggle / "labels.csv").write_text("\n".join(lines).replace(",", ".jpg,").replace("id.jpg", "id"))
    assert csv_items(kaggle / "labels.csv", folder="train", suff=".jpg") == expected


@pytest.mark.parametrize("name", ["labels.csv", ""])
def test_loaders_of_a_label_file(kaggle, monkeypatch, name):
    monkeypatch.setenv("PELLUCID_HOME", str(kaggle / "home"))
    dls = ImageDataLoaders.from_csv(kaggle / name, seed=0, folder="train", suff=".jpg", bs=2, device="cpu")
    assert (dls.vocab, dls.train.n, dls.valid.n) == (["cat", "dog"], 8, 2)
    with pytest.raises(UsageError, match=r"csv_fname='labels\.csv'"):
        ImageDataLoaders.from_csv(kaggle, "labels.csv")


def test_a_file_that_is_listed_twice_is_not_on_both_sides(kaggle):
    with (kaggle / "labels.csv").open("a") as file:
        file.writelines(f"\n{i:04},{'cat' if i % 2 else 'dog'}" for i in range(10))
    with pytest.raises(DataError, match=r"files are in both training and validation, such as .*listed twice"):
        ImageDataLoaders.from_csv(kaggle, seed=0, folder="train", suff=".jpg", device="cpu")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_a_file_is_found_in_both_spellings_of_its_name(tmp_path, form, written):
    name = unicodedata.normalize(form, "é.png")
    (tmp_path / name).touch()
    (tmp_path / "2.png").touch()
    text = f"path,label\n{unicodedata.normalize(written, 'é.png')},cat\n2.png,dog\n"
    assert csv_items(write_csv(tmp_path, text)) == [(tmp_path / name, "cat"), (tmp_path / "2.png", "dog")]
    header = f"path,{unicodedata.normalize(written, 'espèce')},n\n1.png,cat,1\n"
    assert read(tmp_path, header, label_col=unicodedata.normalize(form, "espèce")) == [("1.png", "cat")]


def test_paths_written_on_windows(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").touch()
    assert read(tmp_path, "path,label\ncats\\1.png,cat\n2.png,dog\n") == [("cats/1.png", "cat"), ("2.png", "dog")]


def test_a_folder_or_pipe_of_that_name_is_named(tmp_path):
    (tmp_path / "labels.csv").mkdir()
    with pytest.raises(DataError, match=r"labels\.csv: cannot be read as CSV"):
        csv_items(tmp_path / "labels.csv")


def test_a_first_row_without_an_image_is_said_to_be_taken_for_names(tmp_path, capsys):
    (tmp_path / "b.png").touch()
    assert csv_items(write_csv(tmp_path, "zz,cat\nb,dog\n"), suff=".png") == [(tmp_path / "b.png", "dog")]
    assert "line 1 names no image and is taken for the columns' names: 'zz', 'cat'" in capsys.readouterr().out


@pytest.mark.parametrize("rows", ["a.png,0\nb.png,1\n", "a.png,cat\nb.png,dog\n"])
def test_columns_may_be_named_by_numbers(tmp_path, rows):
    expected = [(tmp_path / file, label) for file, label in (row.split(",") for row in rows.split())]
    assert csv_items(write_csv(tmp_path, f"0,1\n{rows}"), "0", "1") == expected
    assert csv_items(write_csv(tmp_path, rows), "0", "1") == expected
