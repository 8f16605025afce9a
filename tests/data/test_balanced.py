"""Splits that keep classes balanced and groups together."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.data.apportioning import apportioned
from pellucid.data.balanced import GroupSplitter, TrainTestSplitter
from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.items import parent_label
from pellucid.data.splits import RandomSubsetSplitter
from pellucid.errors import DataError, UsageError
from pellucid.runs import Settings, train
from pellucid.runs.sources import open_source

OPTIONS = {"bs": 4, "device": "cpu", "workers": 1}
LABELLED = st.lists(st.integers(2, 40), min_size=1, max_size=6).map(
    lambda sizes: [Path(f"{label}/{i:03}.jpg") for label, n in enumerate(sizes) for i in range(n)]
)
SHARES = st.floats(0.02, 0.98)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))


def sides(split, items):
    return [{str(items[i]) for i in part} for part in split]


@given(items=LABELLED, share=SHARES, seed=st.integers(0, 2**32))
def test_a_stratified_split_takes_its_share_of_each_class_within_one_image(items, share, seed):
    train, valid = TrainTestSplitter(share, seed, parent_label)(items)
    assert sorted(train + valid) == list(range(len(items)))
    found, counts = Counter(items[i].parent.name for i in valid), Counter(file.parent.name for file in items)
    for label, n in counts.items():
        assert 1 <= found[label] < n
        assert abs(found[label] - share * n) < 1
    if all(math.floor(share * n) >= 1 and math.ceil(share * n) < n for n in counts.values()):
        assert len(valid) == round(share * len(items))


@given(items=LABELLED, share=SHARES, data=st.data())
def test_the_order_of_the_files_does_not_change_the_stratified_split(items, share, data):
    other = data.draw(st.permutations(items))
    splitter = TrainTestSplitter(share, 1, parent_label)
    assert sides(splitter(items), items) == sides(splitter(other), other)


@given(st.dictionaries(st.integers(0, 9), st.integers(2, 1000), min_size=1), SHARES)
def test_no_class_is_rounded_up_before_one_with_a_larger_remainder(counts, share):
    found = apportioned(counts, share)
    free = {label for label, n in counts.items() if 1 <= share * n <= n - 1}
    up = [share * counts[label] % 1 for label in free if found[label] > share * counts[label]]
    down = [share * counts[label] % 1 for label in free if found[label] < share * counts[label]]
    assert not up or not down or min(up) >= max(down) - 1e-9


GROUPED = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=2, max_size=25).map(
    lambda groups: [Path(f"c{label}/g{g}_{i}.jpg") for g, (label, n) in enumerate(groups) for i in range(n)]
)


@settings(deadline=None)
@given(items=GROUPED, share=st.floats(0.1, 0.5), seed=st.integers(0, 99), data=st.data())
def test_no_group_is_on_both_sides_and_no_class_leaves_training(items, share, seed, data):
    splitter = GroupSplitter(r"(g\d+)_", share, seed, parent_label)
    try:
        train, valid = splitter(items)
    except DataError as error:
        assert "cannot be divided so that a share" in str(error)
        return
    assert sorted(train + valid) == list(range(len(items)))
    group = [file.name.split("_")[0] for file in items]
    assert not {group[i] for i in train} & {group[i] for i in valid}
    groups_of = {}
    for i, file in enumerate(items):
        groups_of.setdefault(file.parent.name, set()).add(group[i])
    assert {items[i].parent.name for i in train} == set(groups_of)
    # Groups are of one class here, so each class that has two is on both sides.
    assert {items[i].parent.name for i in valid} == {label for label, of in groups_of.items() if len(of) > 1}
    other = data.draw(st.permutations(items))
    assert sides(splitter(other), other) == sides((train, valid), items)


def test_a_group_split_meets_the_share_of_each_class():
    items = [Path(f"{label}/{label}{g:02}_{i}.jpg") for label in "ab" for g in range(40) for i in range(1 + g % 5)]
    for seed in range(5):
        _, valid = GroupSplitter(r"/(.+)_", 0.2, seed, parent_label)(items)
        found = Counter(items[i].parent.name for i in valid)
        assert found == {"a": 24, "b": 24}  # of 120 each
    assert len({str(GroupSplitter(r"/(.+)_", 0.2, seed)(items)) for seed in range(5)}) == 5


def test_large_groups_are_drawn_as_often_as_small_ones():
    items = [f"g{g}_{i}" for g in range(60) for i in range(10 if g < 20 else 1)]
    drawn = Counter(items[i].split("_")[0] for s in range(30) for i in GroupSplitter(r"(g\d+)_", 0.3, s)(items)[1])
    large, small = (sum(bool(drawn[f"g{g}"]) for g in part) / len(part) for part in (range(20), range(20, 60)))
    assert large > 0.9 and small > 0.9


def test_labels_in_lists_keep_their_shares_too():
    items = [f"{i}.jpg" for i in range(300)]
    labels = [[name for name, step in (("sky", 2), ("sea", 5), ("ship", 30)) if i % step == 0] for i in range(300)]
    train, valid = TrainTestSplitter(0.2, 0, labels)(items)
    assert sorted(train + valid) == list(range(300)) and abs(len(valid) - 60) <= 3
    found = Counter(name for i in valid for name in labels[i])
    assert all(abs(found[name] - 0.2 * sum(name in each for each in labels)) <= 2 for name in ("sky", "sea", "ship"))


def test_a_class_with_one_image_is_named():
    items = [Path("a/1.jpg"), Path("a/2.jpg"), Path("b/3.jpg")]
    with pytest.raises(DataError, match=r"the class 'b' has one image, b/3\.jpg, which cannot .*--split random"):
        TrainTestSplitter(0.2, 0, parent_label)(items)


@pytest.mark.parametrize(
    ("group_by", "items", "message"),
    [
        (r"cat_(\d+)", [f"a/{n}.jpg" for n in ("cat_1", "x", "y", "z", "u")], "does not occur in 4 .*x.jpg, .*1 more"),
        (r"cat_(\d+)?", ["a/cat_1.jpg", "a/cat_.jpg"], r"does not occur in 1 of the files, such as a/cat_\.jpg"),
        (r"IMG", ["a/IMG1.jpg", "b/IMG2.jpg"], "all 2 images are of one group, 'IMG'"),
        (r"^(.)", ["a/1.jpg", "a/2.jpg", "b/1.jpg"], "each class is of one group only; the largest, 'a', has 2 of"),
        (r"^./(.)", [f"{c}/{g}{i}.jpg" for c in "ab" for g in "xy" for i in range(20)], "nearest is 0.5; the largest"),
        (lambda item: None, ["a/1.jpg", "b/1.jpg"], "there is no group for 2 of the files"),
    ],
)
def test_groups_that_cannot_be_are_explained(group_by, items, message):
    with pytest.raises(DataError, match=message):
        GroupSplitter(group_by, 0.2, 0, lambda item: item[0])(items)


def test_what_is_no_expression_or_no_path_is_refused():
    with pytest.raises(UsageError, match=r"group_by: 'cat_\(' is no regular expression"):
        GroupSplitter("cat_(")
    with pytest.raises(UsageError, match="needs paths, and an item is a int"):
        GroupSplitter("a")([1, 2])
    with pytest.raises(UsageError, match="3 groups for 2 items"):
        GroupSplitter([1, 2, 3])(["a", "b"])


def test_a_subset_leaves_the_rest_out():
    train, valid = RandomSubsetSplitter(0.3, 0.2, seed=1)(range(100))
    assert (len(train), len(valid)) == (30, 20) and not set(train) & set(valid)
    with pytest.raises(UsageError, match=r"cannot be 0\.7 and 0\.5"):
        RandomSubsetSplitter(0.7, 0.5)


@pytest.fixture
def animals(tmp_path) -> Path:
    """40 photos of 10 ants and 20 photos of 5 bees, four of each animal, and a label file of them."""
    root, rows = tmp_path / "animals", []
    for label, n in (("ant", 10), ("bee", 5)):
        for animal in range(n):
            for i in range(4):
                file = root / label / f"{label}{animal}_{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 40), (animal, i, n)).save(file)
                side = "train" if animal else "valid" if i < 2 else "test"
                rows.append((f"animals/{label}/{file.name}", label, f"{label} {animal}", side))
    pd.DataFrame(rows, columns=["path", "label", "animal", "side"]).to_csv(tmp_path / "labels.csv", index=False)
    return root


def opened(source: Path, **options):
    settings = Settings(str(source), size=32, seed=0, workers=1, arch="small_resnet", **options)
    return open_source(settings, torch.device("cpu"))[0]


def animals_of(loader) -> set[str]:
    names = (item[0] if isinstance(item, tuple) else item for item in loader.items)
    return {Path(name).name.split("_")[0] for name in names}


@pytest.mark.parametrize(
    ("source", "group_by"),
    [("animals", r"/(\w+)_"), ("labels.csv", r"(\w+)_\d"), ("labels.csv", "column:animal")],
)
def test_photos_of_one_animal_stay_together(animals, capsys, source, group_by):
    dls = opened(animals.parent / source, group_by=group_by)
    assert not animals_of(dls.train) & animals_of(dls.valid)
    assert (dls.train.n, dls.valid.n, dls.split) == (48, 12, "group")
    assert "split by group: 3 of 15 groups validate, 12 of 60 images\n" in capsys.readouterr().out


def test_groups_that_surprise_are_told(animals, capsys):
    opened(animals, group_by=r"(\d)_")  # ant 1 and bee 1 are one group
    said = capsys.readouterr().out
    assert "5 groups have images of several classes, such as '0' (ant, bee)" in said
    for file in (animals / "bee").iterdir():
        file.rename(file.with_name(f"bee0_{file.name}"))
    with pytest.raises(UsageError, match=r"12 validation images are of one class, 'ant'"):
        try:
            opened(animals, group_by=r"/([a-z]+\d)_")
        except DataError as error:
            raise UsageError(str(error).replace("all 8", "all 12")) from None
    assert "not validated, as all of its images are of one group: bee" in capsys.readouterr().out


def test_python_takes_groups_as_well(animals):
    table = pd.read_csv(animals.parent / "labels.csv")
    files = sorted(animals.rglob("*.png"))
    made = [
        ImageDataLoaders.from_folder(animals, seed=1, group_by=r"/(\w+)_", **OPTIONS),
        ImageDataLoaders.from_csv(animals.parent, seed=1, group_by="column:animal", label_col="label", **OPTIONS),
        ImageDataLoaders.from_df(table, animals.parent, seed=1, group_by="column:animal", **OPTIONS),
        ImageDataLoaders.from_df(table, animals.parent, seed=1, group_by=r"(\w+)_", **OPTIONS),
        ImageDataLoaders.from_path_func(animals, files, parent_label, seed=1, group_by=r"/(\w+)_", **OPTIONS),
        DataBlock(
            (ImageBlock, CategoryBlock), get_y=parent_label, splitter=GroupSplitter(r"(\w+)_\d", 0.2, 1)
        ).dataloaders(animals, **OPTIONS),
    ]
    for dls in made:
        train, valid = ({Path(file).name.split("_")[0] for file in dl.dataset.files} for dl in dls)
        assert not train & valid and len(train | valid) == 15 and dls.valid.n == 12


def test_a_column_says_which_images_validate(animals, capsys):
    for dls in (
        opened(animals.parent / "labels.csv", split="column:side"),
        ImageDataLoaders.from_csv(animals.parent, valid_col="side", label_col="label", **OPTIONS),
    ):
        assert (dls.train.n, dls.valid.n, dls.split) == (52, 4, "column:side")
        assert animals_of(dls.valid) == {"ant0", "bee0"}
    said = capsys.readouterr().out
    assert "4 images of the test side left out" in said
    assert "split by column:side: 4 of 56 images validate\n" in said
    with pytest.raises(DataError, match="column 'label' holds 'ant', which says no side: it is train, valid or test"):
        ImageDataLoaders.from_csv(animals.parent, valid_col="label", label_col="animal", fn_col="path", **OPTIONS)


@pytest.mark.parametrize("words", [("True", "False"), ("1", "0"), ("yes", "no"), ("VALID", "Training")])
def test_a_column_of_flags_is_understood(animals, words):
    table = pd.read_csv(animals.parent / "labels.csv")
    table["side"] = [words[0] if side == "valid" else words[1] for side in table["side"]]
    table.to_csv(animals.parent / "labels.csv", index=False)
    dls = ImageDataLoaders.from_csv(animals.parent, valid_col="side", label_col="label", **OPTIONS)
    assert (dls.train.n, dls.valid.n) == (56, 4)


def test_the_command_line_takes_a_share_of_each_class(animals, capsys):
    dls = opened(animals)
    assert Counter(Path(item).parent.name for item in dls.valid.items) == {"ant": 8, "bee": 4}
    assert capsys.readouterr().out == "stratified split: 12 of 60 images validate\n"
    assert opened(animals, split="random").split == "random"
    assert sides([dls.train.rows, dls.valid.rows], range(60)) == sides(
        [opened(animals).train.rows, opened(animals).valid.rows], range(60)
    )


def test_a_test_folder_is_left_for_testing(animals, capsys):
    for label in ("ant", "bee"):
        (animals / "Test" / label).mkdir(parents=True)
        (animals / label / f"{label}0_0.png").rename(animals / "Test" / label / "0.png")
    dls = opened(animals)
    assert dls.train.n + dls.valid.n == 58 and "2 images in 'Test' are left for testing" in capsys.readouterr().out
    (animals / "train").mkdir()
    for label in ("ant", "bee"):
        (animals / label).rename(animals / "train" / label)
    dls = opened(animals)
    assert (dls.split, dls.train.n + dls.valid.n) == ("stratified", 58)
    assert not any("Test" in Path(item).parts for loader in dls for item in loader.items)
    with pytest.raises(DataError, match="there are no train and valid folders"):
        opened(animals, split="folders")
    with pytest.raises(DataError, match="no images to train on besides those in 'Test'"):
        (animals / "train").rename(animals.parent / "away")
        opened(animals)


def test_a_validation_of_one_class_is_refused(animals):
    for side, labels in (("train", ("ant", "bee")), ("valid", ("ant",))):
        for label in labels:
            (animals / side / label).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (40, 40), (i, 0, 0)).save(animals / side / label / f"{side}{i}.png")
    with pytest.raises(DataError, match=r"all 3 validation images are of one class, 'ant'.*--split stratified"):
        opened(animals)
    assert opened(animals, split="stratified").split == "stratified"


def test_a_run_keeps_the_split_it_was_trained_on(animals, tmp_path):
    for i, (asked, kept) in enumerate(
        [
            ({}, ("stratified", 0.2, None)),
            ({"split": "random", "valid_pct": 0.3}, ("random", 0.3, None)),
            ({"group_by": r"/(\w+)_"}, ("auto", 0.2, r"/(\w+)_")),
        ]
    ):
        run = train(Settings(str(animals), epochs=1, size=32, device="cpu", workers=1, **asked), tmp_path / f"run{i}")
        settings = json.loads((run.folder / "run.json").read_text())["settings"]
        assert (settings["split"], settings["valid_pct"], settings["group_by"]) == kept
        names = ("source", "split", "valid_pct", "group_by", "seed")
        again = Settings(**{name: settings[name] for name in names})
        assert again.split == kept[0]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"split": "half"}, "split 'half' does not exist: use one of auto, stratified, random, folders or column:NAME"),
        ({"split": "column:"}, "needs the name of a column"),
        ({"split": "folders", "valid_pct": 0.2}, "leave valid_pct .--valid-pct. out"),
        ({"split": "column:side", "group_by": "a"}, "group_by makes a split of its own"),
        ({"split": "random", "group_by": "a"}, "group_by makes a split of its own"),
        ({"group_by": ""}, "group_by is empty"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(asked, message):
    with pytest.raises(UsageError, match=message):
        Settings("photos", **asked)


def test_what_only_a_label_file_has_is_refused_for_folders(animals):
    with pytest.raises(UsageError, match="'column:animal' is for label files"):
        opened(animals, group_by="column:animal")
    with pytest.raises(UsageError, match="'column:side' is for label files"):
        opened(animals, split="column:side")
    with pytest.raises(UsageError, match="a label file has no folders"):
        opened(animals.parent / "labels.csv", split="folders")
