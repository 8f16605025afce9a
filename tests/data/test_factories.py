"""Loaders in fastai's words: same names, same arguments, same meaning, and what differs says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fastcore.basics import using_attr
from PIL import Image

from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.frames import ColReader, ColSplitter, rows
from pellucid.data.images import PILImageBW
from pellucid.data.items import RegexLabeller, get_image_files, parent_label
from pellucid.data.loader import DataLoaders
from pellucid.data.splits import FuncSplitter, IndexSplitter
from pellucid.data.verification import verify_images
from pellucid.errors import DataError, UsageError

OPTIONS = {"bs": 4, "device": "cpu"}


@pytest.fixture
def pets(tmp_path) -> Path:
    """`pets/images/Cat_<n>.png` and `dog_<n>.png`, ten each; pixel [0, 0] is 10 n, plus 100 for dogs."""
    (tmp_path / "pets" / "images").mkdir(parents=True)
    for base, name in ((0, "Cat"), (100, "dog")):
        for n in range(10):
            pixels = np.zeros((4, 5), np.uint8)
            pixels[0, 0] = base + 10 * n
            Image.fromarray(pixels).save(tmp_path / "pets" / "images" / f"{name}_{n}.png")
    return tmp_path / "pets"


def found(dls) -> dict[int, str]:
    """Pixel [0, 0] → class name, over both loaders as they are given out."""
    pairs = {}
    for dl in dls:
        for xb, yb in dl.in_order():
            pairs |= {round(x.item() * 255): dls.vocab[y] for x, y in zip(xb[:, 0, 0, 0], yb.tolist(), strict=True)}
    return pairs


def expected(cat: str = "Cat", dog: str = "dog") -> dict[int, str]:
    return {10 * n: cat for n in range(10)} | {100 + 10 * n: dog for n in range(10)}


def files(pets: Path) -> list[Path]:
    return sorted((pets / "images").iterdir())


def frame(pets: Path) -> pd.DataFrame:
    names = [file.stem for file in files(pets)]
    return pd.DataFrame(
        {
            "age": range(len(names)),
            "fname": names,
            "is_valid": [n.endswith(("3", "7")) for n in names],
            "breed": [n.split("_")[0] for n in names],
        }
    )


MAKERS = {
    "from_name_func": lambda p: ImageDataLoaders.from_name_func(
        p, files(p), lambda name: "Cat" if name[0].isupper() else "dog", **OPTIONS
    ),
    "from_name_re": lambda p: ImageDataLoaders.from_name_re(p, files(p), r"^(.+)_\d+.png$", **OPTIONS),
    "from_path_func": lambda p: ImageDataLoaders.from_path_func(
        p, files(p), lambda path: path.name.split("_")[0], **OPTIONS
    ),
    "from_path_re": lambda p: ImageDataLoaders.from_path_re(p, files(p), pat=r"images/(.+)_\d+.png$", **OPTIONS),
    "from_lists": lambda p: ImageDataLoaders.from_lists(
        p, files(p), [f.name.split("_")[0] for f in files(p)], **OPTIONS
    ),
    "from_df": lambda p: ImageDataLoaders.from_df(
        frame(p), p, folder="images", fn_col="fname", suff=".png", label_col="breed", **OPTIONS
    ),
    "from_df by number": lambda p: ImageDataLoaders.from_df(
        frame(p), p, 0.2, 1, 1, "images", ".png", 3, img_cls=PILImageBW, **OPTIONS
    ),
    "DataBlock of a frame": lambda p: DataBlock(
        blocks=[ImageBlock, CategoryBlock],
        get_x=ColReader("fname", pref=p / "images", suff=".png"),
        get_y=ColReader("breed"),
    ).dataloaders(frame(p), path=p, **OPTIONS),
    "two columns": lambda p: DataBlock.from_columns(
        get_items=lambda df: ([p / "images" / f"{name}.png" for name in df.fname], df.breed)
    ).dataloaders(frame(p), path=p, **OPTIONS),
    "from_dblock": lambda p: DataLoaders.from_dblock(
        DataBlock(get_y=using_attr(RegexLabeller(r"^(.+)_\d+.png$"), "name")), p, p, **OPTIONS
    ),
    "functions of a row": lambda p: DataBlock(
        get_x=lambda r: p / "images" / f"{r['fname']}.png", get_y=lambda r: r.breed
    ).dataloaders(frame(p), path=p, **OPTIONS),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_way_gives_each_file_its_label(pets, name):
    dls = MAKERS[name](pets)
    assert found(dls) == expected() and dls.vocab == ["Cat", "dog"]
    assert (dls.train.n, dls.valid.n) == (16, 4) and dls.path == pets
    assert (len(dls.train_ds), len(dls.valid_ds)) == (16, 4)
    image, label = dls.valid_ds[2]
    assert image.size == (5, 4) and label == dls.valid.labels[2]
    assert np.asarray(image).flat[0] == round(next(iter(dls.valid))[0][2, 0, 0, 0].item() * 255)


@pytest.mark.parametrize("name", MAKERS)
def test_new_items_are_read_and_labelled_like_those_of_the_set(pets, name):
    dls = MAKERS[name](pets)
    items = dls.valid_ds.items
    for given in (items, files(pets)[:4]):  # items of the set, or images themselves
        (batch,) = list(dls.test_dl(given))
        assert len(batch) == 1 and batch[0].shape[1:] == dls.one_batch()[0].shape[1:]
    xb, yb = next(iter(dls.test_dl(items, with_labels=True)))
    again = next(iter(dls.valid))
    assert np.array_equal(xb, again[0]) and yb.tolist() == again[1].tolist()


def test_a_name_function_sees_the_name_and_a_path_function_the_path(pets):
    seen = []
    ImageDataLoaders.from_name_func(pets, files(pets), lambda x: seen.append(x) or x[0], **OPTIONS)
    ImageDataLoaders.from_path_func(pets, files(pets), lambda x: seen.append(x) or x.name[0], **OPTIONS)
    assert {type(x) for x in seen[:20]} == {str} and sorted(seen[:20]) == [f.name for f in files(pets)]
    assert sorted(seen[20:]) == files(pets)


def test_a_column_decides_what_validates(pets):
    options = {"folder": "images", "fn_col": "fname", "suff": ".png", "label_col": "breed", **OPTIONS}
    for table, col in ((frame(pets), "is_valid"), (frame(pets).astype({"is_valid": int}), 2)):
        dls = ImageDataLoaders.from_df(table, pets, valid_col=col, **options)
        assert sorted(Path(f).stem for f in dls.valid_ds.files) == ["Cat_3", "Cat_7", "dog_3", "dog_7"]
    for col in ("is_valid", 2):
        dls = _from_csv(pets, valid_col=col)
        assert sorted(Path(f).stem for f in dls.valid_ds.files) == ["Cat_3", "Cat_7", "dog_3", "dog_7"]


def test_whole_numbers_of_a_row_stay_whole():
    table = pd.DataFrame({"id": [1, 2], "label": [3, 4], "score": [0.5, 1.5]})
    (row, _) = rows(table)
    assert ColReader("label")(row) == 3 and type(ColReader("label")(row)) is int
    assert ColReader("id", suff=".jpg")(row) == "1.jpg" and ColReader(2)(row) == 0.5


def test_a_splitter_of_frames_gets_the_frame(pets):
    def splitter(df):  # as fastbook writes it
        return df.index[~df["is_valid"]].tolist(), df.index[df["is_valid"]].tolist()

    block = DataBlock(
        get_x=ColReader(1, pref=f"{pets}/images/", suff=".png"), get_y=ColReader("breed"), splitter=splitter
    )
    assert [row.fname for row in block.datasets(frame(pets)).valid.items] == ["Cat_3", "Cat_7", "dog_3", "dog_7"]


@pytest.mark.parametrize(
    ("column", "on", "valid"),
    [
        ([True, False, True], None, [0, 2]),
        ([0, 1, 0], None, [1]),
        (["True", "False", "False"], None, [0]),
        (["train", "valid", "test"], "valid", [1]),
        (["train", "valid", "test"], ["valid", "test"], [1, 2]),
        ([1, 2, 3], 3, [2]),
    ],
)
def test_a_column_splitter_takes_flags_or_values(column, on, valid):
    train = [i for i in range(3) if i not in valid]
    assert ColSplitter("side", on)(pd.DataFrame({"side": column})) == (train, valid)


@pytest.mark.parametrize("column", [["yes", "no", "no"], [1.0, 0.0, float("nan")], [0, 1, 2], [None, True, True]])
def test_a_column_of_anything_else_is_refused(column):
    with pytest.raises(DataError, match=r"ColSplitter: column 'side' holds .*neither true nor false.*on='valid'"):
        ColSplitter("side")(pd.DataFrame({"side": column}))


def test_columns_that_do_not_exist_are_named_with_those_that_do(pets):
    for make in (
        lambda: ColSplitter("valid")(frame(pets)),
        lambda: ColSplitter(9)(frame(pets)),
        lambda: ColReader("valid")(frame(pets).iloc[0]),
        lambda: ColReader(9)(frame(pets).iloc[0]),
        lambda: ColReader("valid")({"age": 1, "fname": "a", "is_valid": 0, "breed": "b"}),
    ):
        with pytest.raises(DataError, match=r"no column ('valid'|9); there are 'age', 'fname', 'is_valid', 'breed'"):
            make()
    with pytest.raises(UsageError, match=r"ColSplitter splits the rows of a DataFrame, the items are a list"):
        ColSplitter()([1, 2])


@pytest.mark.parametrize(
    "row",
    [pd.Series({"n": 3, "f": "a"}), ["x", "a"], ("x", "a"), {"f": "a", 1: "a"}],
    ids=["row", "list", "tuple", "dict"],
)
def test_a_column_reader_reads_any_row(row):
    assert ColReader(1)(row) == ColReader([1])(row) == "a"
    assert ColReader(1, "x-", ".jpg")(row) == "x-a.jpg" and ColReader(1, Path("d"), ".jpg")(row) == "d/a.jpg"


def test_new_transforms_make_another_declaration(pets):
    def shrink(image):
        return image.resize((2, 3))

    first = DataBlock(get_y=RegexLabeller(r"([A-Za-z]+)_\d+\.png$"), item_tfms=shrink, batch_tfms=lambda x: x)
    second = first.new(batch_tfms=lambda x: x * 0)
    assert second.datasets(pets).train[0][0].size == (5, 4) and first.datasets(pets).train[0][0].size == (2, 3)
    assert second.dataloaders(pets, **OPTIONS).one_batch()[0].max() == 0
    assert first.dataloaders(pets, **OPTIONS).one_batch()[0].max() > 0 and len(second.item_tfms) == 0


def test_order_and_last_batch_are_chosen(pets):
    block = DataBlock(get_y=RegexLabeller(r"([A-Za-z]+)_\d+\.png$"), splitter=IndexSplitter([0, 19]))
    in_order = block.dataloaders(pets, shuffle=False, **OPTIONS)
    assert list(in_order.train.labels) == [y for _, yb in in_order.train for y in yb]
    sizes = [
        [len(yb) for _, yb in block.dataloaders(pets, bs=7, device="cpu", **options).train]
        for options in ({}, {"drop_last": False}, {"shuffle": False}, {"shuffle": False, "drop_last": True})
    ]
    assert sizes == [[7, 7], [7, 7, 4], [7, 7, 4], [7, 7]]


def test_the_order_of_a_vocabulary_is_said(pets):
    assert CategoryBlock(["b", "a"], sort=True).vocab == CategoryBlock(["a", "b"]).vocab == ["a", "b"]
    assert CategoryBlock(["b", "a"], sort=False).vocab == ["b", "a"]
    with pytest.raises(UsageError, match=r"\['b', 'a'\] is not sorted.*sort=False"):
        CategoryBlock(["b", "a"])
    with pytest.raises(UsageError, match="the class 'a' twice"):
        CategoryBlock(["a", "b", "a"])


def _from_csv(pets: Path, **options):
    frame(pets).to_csv(pets / "labels.csv", index=False)
    return ImageDataLoaders.from_csv(
        pets, fn_col="fname", label_col="breed", folder="images", suff=".png", **OPTIONS, **options
    )


def test_a_label_file_is_read_like_its_frame(pets):
    assert found(_from_csv(pets)) == expected()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: DataBlock(getters=[1, 2]), r"DataBlock does not take getters \(pass them as get_x and get_y\)"),
        (lambda p: DataBlock(n_inp=1), "one class"),
        (lambda p: DataBlock(wrong_kwarg=42, other="foo"), "DataBlock does not take wrong_kwarg, other$"),
        (lambda p: DataBlock(get_y=parent_label).dataloaders(p, num_workers=0), "num_workers .*called workers"),
        (lambda p: DataBlock(get_y=parent_label).dataloaders(p, p), "batch size must be a whole number.*path=…"),
        (lambda p: DataBlock(get_y=parent_label).dataloaders(p, verbose=True), "summary"),
        (lambda p: DataBlock(get_y=parent_label).datasets(p, verbose=True), "datasets .*summary"),
        (lambda p: ImageDataLoaders.from_folder(p, num_workers=2), "num_workers .*called workers"),
        (lambda p: _from_csv(p, header=None), r"header \(a line of headings"),
        (lambda p: ImageDataLoaders.from_folder(p, label_delim=" "), "from_csv and from_df with label_delim"),
        (lambda p: ImageDataLoaders.from_df(p, frame(p)), "takes a DataFrame first, then the path; got a PosixPath"),
        (lambda p: ImageDataLoaders.from_lists(p, files(p), ["cat"]), "got 20 images and 1 for labels"),
        (lambda p: ImageDataLoaders.from_lists(p, files(p), "cat"), "got 20 images and one string"),
        (lambda p: ImageDataLoaders.from_name_re(p, [], "(a)"), "fnames got no items"),
        (lambda p: ColReader([]), "one column or several"),
        (lambda p: ColReader(["a", "b"], label_delim=";"), "of one column by label_delim"),
        (lambda p: CategoryBlock(add_na=True), "add_na"),
    ],
)
def test_what_differs_from_fastai_says_so(pets, make, message):
    with pytest.raises(UsageError, match=message):
        make(pets)


@pytest.mark.parametrize("folders", ["valid", ["valid"], ("valid",), Path("valid")])
def test_one_folder_stands_for_a_list_of_it(tmp_path, folders):
    for name in ("valid", "v", "train"):
        (tmp_path / name).mkdir()
        Image.new("L", (2, 2)).save(tmp_path / name / "1.png")
    assert get_image_files(tmp_path, folders=folders) == [tmp_path / "valid" / "1.png"]
    assert len(get_image_files(tmp_path, folders=None)) == len(get_image_files(tmp_path, folders=[])) == 3


def test_arguments_have_fastais_names(pets):
    labels = {RegexLabeller(pat=r"([A-Za-z]+)_\d+.png$", match=False)(f) for f in files(pets)}
    assert labels == {"Cat", "dog"}
    assert FuncSplitter(func=lambda n: n > 1)([1, 2, 3]) == ([0], [1, 2])


def test_files_that_cannot_be_decoded_are_found(pets):
    bad = [pets / "images" / name for name in ("Cat_3.png", "dog_0.png", "dog_9.png")]
    bad[0].write_bytes(bad[0].read_bytes()[:-30])
    bad[1].write_bytes(b"")
    bad[2].write_text("<html>")
    failed = verify_images(get_image_files(pets))
    assert failed == bad
    failed.map(Path.unlink)
    assert verify_images(get_image_files(pets)) == [] and len(get_image_files(pets)) == 17
    assert verify_images([]) == [] and verify_images([pets / "none.png"]) == [pets / "none.png"]
    for path in (pets, str(pets), pets / "images" / "Cat_1.png"):
        with pytest.raises(UsageError, match=r"takes a list of files: verify_images\((get_image_files\(|\[)'/"):
            verify_images(path)


def test_a_summary_may_show_a_batch(pets, capsys):
    block = DataBlock(get_y=RegexLabeller(r"([A-Za-z]+)_\d+\.png$"))
    block.summary(pets)
    assert not plt.get_fignums()
    block.summary(pets, bs=3, show_batch=True, unique=True, max_n=2, figsize=(2, 3))
    assert len([ax for ax in plt.gcf().axes if ax.get_images()]) == 2
    assert plt.gcf().get_size_inches().tolist() == [2, 3]
    assert capsys.readouterr().out.count("20 from") == 2


def test_pandas_is_not_imported_for_a_folder(pets):
    for file in files(pets):
        (pets / file.name[:3]).mkdir(exist_ok=True)
        file.rename(pets / file.name[:3] / file.name)
    code = (
        "import sys; from pellucid.data.factories import ImageDataLoaders; "
        f"ImageDataLoaders.from_folder({str(pets)!r}, device='cpu'); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
