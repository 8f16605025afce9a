"""What a folder of folders is taken for, and that nothing in it is left out in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.data.factories import ImageDataLoaders
from pellucid.data.layouts import layout, role
from pellucid.errors import DataError

TRAIN = ["train", "Train", "TRAIN", "training", "Training", "train_set", "TrainSet", "training-data", "train images"]
VALID = ["valid", "Val", "VALIDATION", "valid_set", "val2017", "Validation Data", "val.images"]
TEST = ["test", "Testing", "test_set", "TEST-DATA", "test2017"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def fill(root: Path, **folders: int) -> None:
    """`fill(root, train__cat=3)` writes 3 images into `train/cat`."""
    for path, n in folders.items():
        folder = root / path.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("L", (4, 4), i).save(folder / f"{i}.png")


def sides(root: Path, name: str, inner: tuple[str, ...], n: int) -> None:
    for label in inner:
        fill(root, **{f"{name}__{label}": n})


def split(root: Path, **options) -> tuple[dict[str, int], dict[str, int]]:
    """Folders (from `root`) of the training and of the validation images, with their number."""
    dls = ImageDataLoaders.from_folder(root, bs=2, device="cpu", seed=0, **options)
    folders = [[Path(file).parent.relative_to(root).as_posix() for file in dl.items] for dl in dls]
    return tuple({name: part.count(name) for name in part} for part in folders)  # type: ignore[return-value]


def refused(root: Path, *said: str, **options) -> None:
    with pytest.raises(DataError) as caught:
        split(root, **options)
    missing = [part for part in said if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def test_names_are_known_in_every_spelling():
    assert {role(name) for name in TRAIN} == {"train"}
    assert {role(name) for name in VALID} == {"valid"}
    assert {role(name) for name in TEST} == {"test"}
    for name in ("trains", "trained", "latest", "contest", "set", "images", "valide", "interval", "cat", "7", ""):
        assert role(name) is None


@pytest.mark.parametrize(("train", "valid"), [*zip(TRAIN, VALID, strict=False), *zip(TRAIN, TEST, strict=False)])
def test_sides_are_found_and_said(root, capsys, train, valid):
    for name, n in ((train, 3), (valid, 2)):
        sides(root, name, ("cat", "dog"), n)
    assert split(root) == ({f"{train}/cat": 3, f"{train}/dog": 3}, {f"{valid}/cat": 2, f"{valid}/dog": 2})
    said = capsys.readouterr().out
    if (train, valid) == ("train", "valid"):
        assert said == ""
    else:
        assert said == f"{root}: training images from {train!r} (6), validation images from {valid!r} (4)\n"


def test_a_test_folder_is_left_out_beside_a_validation_folder_and_counted(root, capsys):
    for name, n in (("train", 3), ("valid", 2), ("test", 1)):
        sides(root, name, ("cat", "dog"), n)
    assert split(root)[1] == {"valid/cat": 2, "valid/dog": 2}
    assert capsys.readouterr().out == f"{root}: left out: 2 other images\n"
    assert split(root, train="train", valid="test")[1] == {"test/cat": 1, "test/dog": 1}


def test_class_folders_are_split_at_random_and_that_is_said(root, capsys):
    fill(root, cat=6, dog=4)
    train, valid = split(root)
    assert (sum(train.values()), sum(valid.values())) == (8, 2)
    assert "no training and validation folders: a random share of the 10 images validates" in capsys.readouterr().out
    split(root, valid_pct=0.2)
    assert capsys.readouterr().out == ""


def test_a_share_is_taken_of_all_sides(root, capsys):
    for name, n in (("Train", 3), ("Val", 2), ("extra", 1)):
        sides(root, name, ("cat", "dog"), n)
    train, valid = split(root, valid_pct=0.5)
    assert sum(train.values()) + sum(valid.values()) == 10
    assert "left out: 2 other images" in capsys.readouterr().out


def test_nested_classes_are_their_innermost_folders_and_that_is_said(root, capsys):
    for side, n in (("train", 3), ("valid", 2)):
        fill(root, **{f"{side}__pets__cat": n, f"{side}__pets__dog": n, f"{side}__wild__fox": n})
    dls = ImageDataLoaders.from_folder(root, bs=2, device="cpu")
    assert (dls.vocab, dls.train.n, dls.valid.n) == (["cat", "dog", "fox"], 9, 6)
    assert "classes are the innermost folders, as 'cat' of 'pets/cat'" in capsys.readouterr().out
    assert ImageDataLoaders.from_folder(root / "train", bs=2, device="cpu").vocab == ["cat", "dog", "fox"]


@pytest.mark.parametrize("start", ["", "train__"])
def test_one_name_for_two_classes_is_refused(root, start):
    fill(root, **{f"{start}{path}": 2 for path in ("cat__batch1", "cat__batch2", "dog__batch1")}, valid__fox=1)
    if not start:
        (root / "valid").rename(root / "bird")
    refused(root, "cat/batch1 and dog/batch1 would be one class")


@pytest.mark.parametrize("start", ["", "train__"])
def test_images_beside_class_folders_in_a_class_are_refused(root, start):
    fill(
        root, **{f"{start}cat": 2, f"{start}cat__persian": 2, f"{start}dog": 1}, **({"valid__cat": 1} if start else {})
    )
    refused(root, "cat holds images, and the folder cat/persian, which would be a class of its own")


def test_two_sides_with_names_of_ones_own_are_not_mixed(root):
    for name in ("part1", "part2"):
        sides(root, name, ("cat", "dog"), 3)
    refused(root, "part1/cat and part2/cat would be one class", "from_folder(path, train='part1', valid='part2')")
    assert split(root, train="part1", valid="part2")[1] == {"part2/cat": 3, "part2/dog": 3}


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folder_around_everything_does_not_hide_the_sides(root, capsys, depth):
    inner = root.joinpath(*["zoo", "data"][:depth])
    for name, n in (("train", 3), ("valid", 2)):
        sides(inner, name, ("cat", "dog"), n)
    (root / "__MACOSX" / "zoo").mkdir(parents=True)
    (root / "__MACOSX" / "._zoo").touch()
    (root / ".DS_Store").touch()
    dls = ImageDataLoaders.from_folder(root, bs=2, device="cpu")
    assert [{file.relative_to(inner).parts[0] for file in dl.items} for dl in dls] == [{"train"}, {"valid"}]
    assert capsys.readouterr().out == f"{inner}: its one folder stands for the whole\n"


@pytest.mark.parametrize("names", [("train", "Train"), ("training", "train_set")])
def test_two_folders_for_one_side_are_not_chosen_between(root, names):
    for name in (*names, "valid"):
        sides(root, name, ("cat", "dog"), 2)
    refused(root, *map(repr, names), "are all named like the train folder")
    assert split(root, train=names[0], valid="valid")[0] == {f"{names[0]}/cat": 2, f"{names[0]}/dog": 2}


def test_a_flat_folder_says_that_it_is_flat(root):
    fill(root.parent, set=24)
    refused(root, f"{root}: holds 24 images but no class folders", "one sub-folder a class", "from_name_func")


@pytest.mark.parametrize("name", ["test", "Test_Set", "val"])
def test_a_flat_validation_folder_says_that_it_is_flat(root, name):
    sides(root, "train", ("cat", "dog"), 3)
    fill(root, **{name: 5})
    refused(root, f"{root / name}: holds 5 images but no class folders", "--valid-pct 0.2")
    assert sum(map(len, split(root, valid_pct=0.5))) >= 2
    assert not any(name in side for side in split(root, valid_pct=0.5))


def test_a_flat_training_folder_says_that_it_is_flat(root):
    fill(root, train=6, test=3)
    refused(root, f"{root / 'train'}: holds 6 images but no class folders", "from_csv", "from_name_func")


@pytest.mark.parametrize("options", [{}, {"valid_pct": 0.5}])
def test_a_test_folder_among_classes_is_no_class(root, options):
    fill(root, cat=3, dog=3, test=5)
    refused(root, f"{root / 'test'}: holds 5 images but no class folders, and its name is no class", **options)


@pytest.mark.parametrize("folders", [{"train": 3}, {"cat": 3, "dog": 3}])
def test_one_side_among_classes_is_no_group_of_classes(root, folders):
    fill(root, **folders, test__fox=2, test__hen=2)
    refused(root, f"{root / 'test'}: holds class folders and is named like a side of a split", valid_pct=0.5)


def test_a_class_may_be_named_train_when_the_split_is_asked_for(root):
    fill(root, train=4, bus=4)
    refused(root, "has 'train' but no validation folder")
    assert set(split(root, valid_pct=0.5)[0]) == {"train", "bus"}


def test_a_validation_folder_alone_asks_for_the_other(root):
    fill(root, cat=3, dog=3, valid__cat=2, valid__dog=2)
    refused(root, "has 'valid' but no training folder (one of train, training)")


@pytest.mark.parametrize("where", ["train__oak", "valid__cat", "oak"])
def test_a_class_folder_emptied_by_its_endings_is_an_error(root, where):
    for name in ("cat", "dog"):
        fill(root, **({name: 3} if where == "oak" else {f"train__{name}": 3, f"valid__{name}": 2}))
    folder = root / where.replace("__", "/")
    folder.mkdir(exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    for i in range(14):
        (folder / f"{i}.psd").touch()
    refused(root, f"{folder}: none of its files is an image by its ending (.psd 14)")


def test_other_folders_and_files_may_be_there_and_are_counted(root, capsys):
    fill(root, train__cat=3, train__dog=3, valid__cat=2, valid__dog=2, train=1)
    for name in ("readme.md", "labels.csv", "notes/a.txt", "train/cat/boxes/0.xml", "train/cat/1.xml"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    assert split(root)[0] == {"train/cat": 3, "train/dog": 3}
    said = capsys.readouterr().out
    assert "left out: 1 other image; 5 files that are no images by their endings" in said and ".xml 2" in said


@pytest.mark.parametrize("options", [{"train": "trian", "valid": "valid"}, {"train": "train", "valid": "vaild"}])
def test_a_named_folder_that_is_not_there_is_named_with_those_that_are(root, options):
    for name in ("train", "valid"):
        sides(root, name, ("cat", "dog"), 2)
    wrong = next(name for name in options.values() if name in ("trian", "vaild"))
    refused(root, f"no folder is named {wrong!r}; there are 'train', 'valid'", **options)


def test_linked_sides_are_followed_and_one_folder_is_not_both(root, tmp_path, capsys):
    sides(tmp_path / "elsewhere", "a", ("cat", "dog"), 3)
    sides(tmp_path / "elsewhere", "b", ("cat", "dog"), 2)
    (root / "train").symlink_to(tmp_path / "elsewhere" / "a")
    (root / "valid").symlink_to(tmp_path / "elsewhere" / "b")
    assert split(root) == ({"train/cat": 3, "train/dog": 3}, {"valid/cat": 2, "valid/dog": 2})
    (root / "valid").unlink()
    (root / "valid").symlink_to("train")
    refused(root, "no validation images: 'valid'")


def test_a_link_to_an_image_is_that_image(root):
    sides(root, "train", ("cat", "dog"), 3)
    sides(root, "valid", ("cat", "dog"), 1)
    link, twin = root / "valid" / "cat" / "link.png", root / "train" / "cat" / "0.png"
    link.symlink_to("../../train/cat/0.png")
    refused(root, f"1 file is in both training and validation, such as {link} (the same file as {twin})")
    link.rename(root / "train" / "dog" / "link.png")
    refused(root, f"{root / 'train' / 'dog' / 'link.png'} (the same file as {twin}): has two labels, 'dog' and 'cat'")


def test_a_link_to_an_image_that_is_not_used_is_an_image_of_its_own(root):
    sides(root, "pool", ("all",), 4)
    for i, to in enumerate(("train/cat", "train/dog", "valid/cat", "valid/dog")):
        (root / to).mkdir(parents=True)
        (root / to / "x.png").symlink_to(root / "pool" / "all" / f"{i}.png")
    assert split(root) == ({"train/cat": 1, "train/dog": 1}, {"valid/cat": 1, "valid/dog": 1})


def test_only_left_out_files_say_what_they_are(root):
    (root / "oak").mkdir()
    (root / "oak" / "1.psd").touch()
    refused(root, "no images found in it", ".psd 1", f"{root / 'oak'} has no others")


def test_the_order_is_that_of_the_paths(root):
    fill(root, b=2, a__x=2, a__c=1)
    found = layout(root, None, None, True)
    assert found.train == sorted(found.train)


FOLDERS = st.sampled_from(["train", "Training", "valid", "test", "cat", "dog", "a", "a/b", "cat/x"])
TREES = st.dictionaries(
    st.tuples(st.sampled_from(["", "train", "valid", "test", "zoo", "zoo/train"]), FOLDERS).map("/".join),
    st.integers(1, 3),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60)
@given(tree=TREES, at_random=st.booleans())
def test_every_image_is_used_with_its_folders_name_or_counted_or_all_is_refused(tree, at_random, tmp_path_factory):
    root = tmp_path_factory.mktemp("set")
    for path, n in tree.items():
        (root / path.strip("/")).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            (root / path.strip("/") / f"{i}.png").touch()
    total = set(root.rglob("*.png"))
    try:
        found = layout(root, None, None, at_random)
    except DataError:
        return
    train, valid = set(found.train), set(found.valid or [])
    assert len(train) + len(valid) == len(found.train) + len(found.valid or [])
    assert train | valid <= total and not train & valid
    left = total - train - valid
    assert (f"left out: {len(left):,} other image" in found.said) if left else "other image" not in found.said
    used = {file.parent for file in train | valid}
    sides = ({file.parent for file in train}, {file.parent for file in valid})
    for folders in sides:  # no two folders of a side become one class, and none lies in another
        assert len({folder.name for folder in folders}) == len(folders) or at_random
        assert not any(one in two.parents for one in folders for two in folders)
    assert not any(role(folder.name) in ("valid", "test") and folder.parent == root for folder in used)
    if found.valid is not None:
        roles = [
            {role(name) for f in part for name in f.relative_to(root).parts[:-1]} - {None} for part in (train, valid)
        ]
        assert "train" in roles[0] and roles[1] & {"valid", "test"}
