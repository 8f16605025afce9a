"""Dividing items into training and validation."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fastcore.foundation import L
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pellucid.data.block import DataBlock
from pellucid.data.items import parent_label
from pellucid.data.splits import (
    FuncSplitter,
    GrandparentSplitter,
    IndexSplitter,
    MaskSplitter,
    RandomSplitter,
    checked_split,
)
from pellucid.errors import DataError, UsageError
from pellucid.seed import set_seed


def test_grandparents_split_and_others_are_left_out():
    items = [Path("x/train/a/1.png"), Path("x/valid/a/2.png"), Path("x/test/a/3.png"), Path("x/train/b/4.png")]
    assert GrandparentSplitter()(items) == ([0, 3], [1])
    assert GrandparentSplitter("train", ["valid", "test"])(list(map(str, items))) == ([0, 3], [1, 2])


def test_grandparents_that_do_not_occur_are_named_with_those_that_do():
    items = [Path("x/training/a/1.png"), Path("x/holdout/a/2.png")]
    with pytest.raises(DataError) as caught:
        GrandparentSplitter("training", "valid")(items)
    message = str(caught.value)
    assert "no validation images" in message and "'valid'" in message
    assert "there are 'holdout', 'training'" in message and "GrandparentSplitter(" in message
    with pytest.raises(DataError, match="no training images: no folder is named 'train'"):
        GrandparentSplitter()(items)


@given(n=st.integers(2, 400), share=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_a_random_split_is_a_partition_of_the_right_proportion(n, share, seed):
    train, valid = RandomSplitter(share, seed)(range(n))
    assert sorted(train + valid) == list(range(n))
    assert len(valid) == 1 or abs(len(valid) - share * n) <= 1


def test_a_seed_repeats_the_random_split():
    items = range(1000)
    assert RandomSplitter(seed=3)(items) == RandomSplitter(seed=3)(items)
    assert RandomSplitter(seed=3)(items) != RandomSplitter(seed=4)(items)
    assert len(RandomSplitter()(items)[1]) == 200


def test_set_seed_reaches_a_splitter_without_a_seed_of_its_own():
    items = range(1000)
    with torch.random.fork_rng():
        splitter = RandomSplitter()
        set_seed(7)
        expected = splitter(items)
        assert RandomSplitter()(items) == expected == RandomSplitter(seed=7)(items)
        set_seed(8)
        assert splitter(items) != expected


def test_a_split_does_not_depend_on_what_was_drawn_before():
    items = range(1000)
    with torch.random.fork_rng():
        torch.manual_seed(7)  # seeds splits too
        expected = RandomSplitter()(items)
        torch.rand(5), random.random(), np.random.rand()
        assert RandomSplitter()(items) == expected == RandomSplitter(seed=7)(items)


def test_processes_that_nobody_seeded_split_differently():
    code = "from pellucid.data.splits import RandomSplitter; print(RandomSplitter()(range(1000)))"
    splits = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"
    }
    assert len(splits) == 2


def test_a_block_without_a_seed_splits_alike_each_time(tmp_path):
    for name in ("cat", "dog"):
        images(tmp_path, *(f"{name}/{i}.png" for i in range(20)))
    block = DataBlock(get_y=parent_label)
    first = block.datasets(tmp_path)
    torch.rand(3)
    second = block.dataloaders(tmp_path, device="cpu", cache=False)
    assert first.valid.items == list(second.valid.items)


TEN = [f"{i}.png" for i in range(10)]
MASK = [i % 3 == 0 for i in range(10)]
GOOD = [1, 2, 3, 4, 5, 6, 7, 8, 9], [0]


@pytest.mark.parametrize(
    "give",
    [
        list,
        tuple,
        np.array,
        torch.tensor,
        L,
        iter,
        lambda part: [np.int64(i) for i in part],
        lambda part: dict.fromkeys(part).keys(),
    ],
    ids=["list", "tuple", "array", "tensor", "L", "iterator", "numpy numbers", "keys"],
)
def test_whole_numbers_of_any_kind_make_a_split(give):
    assert checked_split([give(part) for part in GOOD], TEN) == (*GOOD, [])
    assert IndexSplitter(give(GOOD[1]))(TEN) == GOOD


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (MASK, "mask of True and False: use MaskSplitter"),
        (np.array(MASK), "mask of True and False: use MaskSplitter"),
        (torch.tensor(MASK), "mask of True and False: use MaskSplitter"),
        ([np.bool_(m) for m in MASK], "mask of True and False: use MaskSplitter"),
        ([0.0, 1.5], "whole numbers, got 0.0"),
        (np.array([0.0, 1.0]), "whole numbers, got 0.0"),
        (torch.tensor([0.0, 1.0]), "whole numbers, got 0.0"),
        (["0", "1"], "whole numbers, got '0'"),
        ("01", "list of positions, got '01'"),
        ([[0, 1]], "whole numbers, got [0, 1]"),
        (np.array([[0, 1]]), "whole numbers, got [0, 1]"),
        (3, "list of positions, got 3"),
        (np.array(3), "got the single number 3"),
        ({0: "a"}, "list of positions, got {0: 'a'}"),
        (None, "list of positions, got None"),
    ],
)
def test_positions_that_are_no_whole_numbers_are_refused(wrong, said):
    for split in ([wrong, [0]], [[0], wrong]):
        with pytest.raises(UsageError) as caught:
            checked_split(split, TEN)
        assert said in str(caught.value)
        assert f"the splitter's {'training' if split[0] is wrong else 'validation'} part" in str(caught.value)
    with pytest.raises(UsageError) as caught:
        IndexSplitter(wrong)
    assert said in str(caught.value)


@pytest.mark.parametrize("split", [None, 3, "ab", {"train": [0]}, [[0]], [[0], [1], [2]], MASK])
def test_what_is_no_pair_of_lists_is_refused(split):
    with pytest.raises(UsageError, match=r"wanted are two lists of positions, \(train, valid\)"):
        checked_split(split, TEN)


@pytest.mark.parametrize("position", [-1, 10, 10**12])
def test_a_position_of_no_item_is_refused(position):
    for split in ([[0, position], [1]], [[0], [position, 1]]):
        with pytest.raises(UsageError, match=f"position {position}; positions of the 10 items go from 0 to 9"):
            checked_split(split, TEN)


def test_an_item_on_both_sides_is_named():
    with pytest.raises(DataError, match=r"2 of the 10 items into both .*such as 3\.png \(position 3\)"):
        checked_split([[1, 3, 5], [3, 5, 7]], TEN)


@given(st.integers(2, 30).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)), st.integers(1, n - 1))))
def test_every_position_is_somewhere(drawn):
    n, order, cut = drawn
    used = order[: max(2, n // 2)]
    cut = min(cut, len(used) - 1)
    train, valid, neither = checked_split((used[:cut], used[cut:]), range(n))
    assert (train, valid) == (used[:cut], used[cut:])
    assert sorted(train + valid + neither) == list(range(n))


def images(folder: Path, *names: str) -> list[Path]:
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), i).save(folder / name)
    return [folder / name for name in names]


def test_items_on_neither_side_are_counted(tmp_path):
    images(tmp_path, "train/a/1.png", "train/b/2.png", "valid/a/3.png", "test/a/4.png", "test/b/5.png")
    block = DataBlock(get_y=parent_label, splitter=GrandparentSplitter())
    with pytest.warns(UserWarning, match=r"2 of 5 items are on neither side .*such as .*test/a/4\.png"):
        datasets = block.datasets(tmp_path)
    assert (len(datasets.train), len(datasets.valid)) == (2, 1)


@pytest.mark.parametrize("spell", [lambda folder: str(folder / "a/1.png"), lambda folder: folder / "b/../a/1.png"])
def test_one_file_on_both_sides_is_refused(tmp_path, spell):
    files = images(tmp_path, "a/1.png", "b/2.png", "a/3.png", "b/4.png")
    block = DataBlock(get_y=lambda file: Path(file).parent.name, splitter=IndexSplitter([4]))
    with pytest.raises(DataError, match=r"1 file is in both training and .*, such as .*1\.png: .*listed twice"):
        block.datasets([*files, spell(tmp_path)])
    assert len(block.datasets([files[0], *files]).train) == 4  # twice on one side: as asked


def test_a_random_split_is_random_over_the_whole_set():
    _, valid = RandomSplitter(0.5, seed=0)(range(1000))
    assert 150 < sum(i < 500 for i in valid) < 350


@pytest.mark.parametrize("share", [0, 1, -0.2, 20, "0.2"])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(UsageError, match=f"between 0 and 1, got {share!r}"):
        RandomSplitter(share)


@given(st.integers(1, 50).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1)))))
def test_an_index_split_is_a_partition(n_and_positions):
    n, positions = n_and_positions
    train, valid = IndexSplitter(positions)(range(n))
    assert set(valid) == set(positions)
    assert sorted(train + valid) == list(range(n))


def test_an_index_outside_the_items_is_named():
    for position in (5, -1):
        with pytest.raises(DataError, match=f"position {position} lies outside the 5 items"):
            IndexSplitter([0, position])("abcde")


def test_a_function_splits():
    assert FuncSplitter(str.isupper)("aBcD") == ([0, 2], [1, 3])


@pytest.mark.parametrize("mask", [MASK, tuple(MASK), np.array(MASK), torch.tensor(MASK), [np.bool_(m) for m in MASK]])
def test_a_mask_validates_where_it_is_true(mask):
    items = list(range(len(MASK)))
    train, valid = MaskSplitter(mask)(items)
    assert valid == [i for i in items if MASK[i]] and train == [i for i in items if not MASK[i]]
    with pytest.raises(UsageError, match=f"{len(MASK)} values for 2 items"):
        MaskSplitter(mask)([1, 2])


@pytest.mark.parametrize("mask", [[0, 1, 1], "ab", ["True"], [None]])
def test_a_mask_of_anything_else_is_refused(mask):
    with pytest.raises(UsageError, match="takes True or False for each item"):
        MaskSplitter(mask)
