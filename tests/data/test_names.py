"""Names of classes in the two spellings of Unicode, and names that look like another."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from pellucid.data.block import CategoryBlock, DataBlock, ImageBlock
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.items import parent_label
from pellucid.data.names import lookalike, one_spelling
from pellucid.data.splits import GrandparentSplitter, IndexSplitter
from pellucid.errors import DataError, UsageError

NAMES = ["café", "Äpfel", "ガ", "한국", "Å", "ệ"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))


def fill(root: Path, *folders: str, n: int = 2) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("L", (4, 4), i).save(root / folder / f"{i}.png")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_two_spellings_are_one_class(tmp_path, name, forms):
    trained, validated = (normalize(form, name) for form in forms)
    fill(tmp_path / "set", f"train/{trained}", "train/dog", f"valid/{validated}", "valid/dog")
    dls = ImageDataLoaders.from_folder(tmp_path / "set", bs=2, device="cpu")
    composed = normalize("NFC", name)
    assert set(dls.vocab) == {composed, "dog"} and dls.valid.n == 4
    assert all(isinstance(label, str) and normalize("NFC", label) == label for label in dls.vocab)
    files = sorted((tmp_path / "set").glob("*/*/*.png"))
    block = DataBlock(
        (ImageBlock, CategoryBlock(["dog", trained], sort=False)), get_y=parent_label, splitter=GrandparentSplitter()
    )
    assert block.datasets(files).vocab == ["dog", composed]


def test_a_class_that_is_spelt_in_two_ways_in_one_place_is_said(tmp_path, capsys):
    fill(tmp_path / "set", *(normalize(form, "café") for form in ("NFC", "NFD")), "dog")
    dls = ImageDataLoaders.from_folder(tmp_path / "set", valid_pct=0.5, seed=0, bs=2, device="cpu")
    assert dls.vocab == ["café", "dog"]
    said = capsys.readouterr().out
    assert r"'cafe\u0301' and 'caf\xe9' are one name in two spellings, and one class" in said


def test_a_class_given_in_two_spellings_is_given_twice():
    with pytest.raises(UsageError, match="twice"):
        CategoryBlock([normalize("NFD", "café"), normalize("NFC", "café")])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_sides_are_named_in_either_spelling(tmp_path, form):
    train, valid = (normalize(form, name) for name in ("entraînement", "contrôle"))
    fill(tmp_path / "set", *(f"{normalize('NFD', side)}/{label}" for side in (train, valid) for label in ("a", "b")))
    dls = ImageDataLoaders.from_folder(tmp_path / "set", train=train, valid=valid, bs=2, device="cpu")
    assert (dls.train.n, dls.valid.n) == (4, 4)
    files = sorted((tmp_path / "set").glob("*/*/*.png"))
    assert list(map(len, GrandparentSplitter(train, valid)(files))) == [4, 4]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("Cat", "; there is 'cat', which differs in capital letters"),
        ("cat ", "; there is 'cat', which differs in spaces"),
        ("big  cat", "; there is 'big cat', which differs in spaces"),
        ("ca\u200bt", r"; there is one that looks the same: 'cat', and not 'ca\u200bt'"),
        ("big\u00a0cat", "; there is 'big cat', which differs in spaces"),
        ("ﬁsh", r"; there is one that looks the same: 'fish', and not '\ufb01sh'"),
        ("ｃａｔ", r"; there is one that looks the same: 'cat', and not '\uff43\uff41\uff54'"),
        ("bird", ""),
    ],
)
def test_what_differs_is_shown(label, said):
    others = ["big cat", "cat", "dog", "fish"]
    assert lookalike(label, others) == said
    block = DataBlock(get_y=lambda item: item[1], get_x=lambda item: item[0], splitter=IndexSplitter([4]))
    items = [(np.zeros((4, 4), np.uint8), name) for name in [*others, label]]
    with pytest.raises(DataError) as caught:
        block.datasets(items)
    assert f"does not occur in training (there are {others}){said}; add training images" in str(caught.value)


def test_a_number_and_its_digits_are_told_apart():
    assert lookalike("3", [3, 7]) == "; there is the int 3, not the str"
    assert one_spelling(3) == 3
