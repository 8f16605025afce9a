"""Images with any number of labels, from a label file to a prediction."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from commands import pellucid
from pellucid.runs import Settings, train
from pellucid.vision.all import (
    BCEWithLogitsLossFlat,
    CategoryBlock,
    ColReader,
    DataBlock,
    DataError,
    F1ScoreMulti,
    ImageBlock,
    ImageDataLoaders,
    Learner,
    MultiCategoryBlock,
    Resize,
    UsageError,
    accuracy_multi,
    default_split,
    get_image_files,
    load_run,
    set_seed,
    vision_learner,
)

COLOURS = ("blue", "green", "red")
OPTIONS = {"bs": 4, "device": "cpu", "workers": 1}


@pytest.fixture
def flags(tmp_path, monkeypatch) -> Path:
    """48 images in one folder, each a mixture of some of three colours or of none, and their label files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    (tmp_path / "images").mkdir()
    rng, rows = np.random.default_rng(0), []
    for i in range(48):
        there = [(i >> bit) & 1 for bit in range(3)]
        pixels = rng.integers(0, 60, (32, 32, 3)) + 180 * np.array([there[2], there[1], there[0]])
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / f"{i:02}.png")
        names = [name for name, is_there in zip(COLOURS, there, strict=True) if is_there]
        rows.append({"path": f"{i:02}.png", "labels": " ".join(names), **dict(zip(COLOURS, there, strict=True))})
    table = pd.DataFrame(rows)
    table[["path", "labels"]].to_csv(tmp_path / "labels.csv", index=False)
    table[["path", *COLOURS]].to_csv(tmp_path / "columns.csv", index=False)
    return tmp_path


def expected(files) -> torch.Tensor:
    numbers = [int(Path(file).stem) for file in files]
    return torch.tensor([[float((n >> bit) & 1) for bit in range(3)] for n in numbers])


def by_number(file) -> list[str]:
    return [name for bit, name in enumerate(COLOURS) if int(Path(file).stem) >> bit & 1]


def made(flags: Path, how: str):
    options = {"seed": 0, "folder": "images", **OPTIONS}
    table = pd.read_csv(flags / "labels.csv")  # an empty cell is nan
    columns = pd.read_csv(flags / "columns.csv")
    block = (ImageBlock, MultiCategoryBlock)
    return {
        "csv": lambda: ImageDataLoaders.from_csv(flags, label_delim=" ", **options),
        "csv columns": lambda: ImageDataLoaders.from_csv(
            flags, csv_fname="columns.csv", fn_col="path", label_col=list(COLOURS), **options
        ),
        "df": lambda: ImageDataLoaders.from_df(table, flags, label_delim=" ", **options),
        "df columns": lambda: ImageDataLoaders.from_df(columns, flags, label_col=[1, 2, 3], **options),
        "function": lambda: DataBlock(block, get_y=by_number).dataloaders(flags / "images", **OPTIONS),
        "name function": lambda: ImageDataLoaders.from_name_func(
            flags, get_image_files(flags / "images"), by_number, y_block=MultiCategoryBlock, **OPTIONS
        ),
        "encoded": lambda: DataBlock(
            (ImageBlock, MultiCategoryBlock(encoded=True, vocab=COLOURS)),
            get_x=ColReader("path", pref=flags / "images"),
            get_y=ColReader(list(COLOURS)),
        ).dataloaders(columns, **OPTIONS),
    }[how]()


@pytest.mark.parametrize("how", ["csv", "csv columns", "df", "df columns", "function", "name function", "encoded"])
def test_batches_hold_a_1_for_each_label(flags, how):
    dls = made(flags, how)
    assert dls.vocab == list(COLOURS) and dls.multi and dls.c == 3
    for loader in (dls.train.in_order(), dls.valid):
        found = torch.cat([yb for _, yb in loader])
        assert found.dtype == torch.float32
        assert torch.equal(found, expected(loader.dataset.files))
    image, target = dls.valid_ds[0]
    assert image.size == (32, 32) and torch.equal(target, expected(dls.valid.dataset.files)[0])


def test_new_items_are_labelled_the_same_way(flags):
    dls = made(flags, "function")
    files = sorted((flags / "images").iterdir())[:5]
    (batch,) = [yb for _, yb in dls.test_dl(files, with_labels=True, bs=8)]
    assert torch.equal(batch, expected(files))


def test_the_loss_is_that_of_yes_or_no_for_each_label(flags):
    dls = made(flags, "csv")
    set_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3))
    learn = Learner(dls, model, metrics=[accuracy_multi, F1ScoreMulti()], lr=0.5)
    assert isinstance(learn.loss_func, BCEWithLogitsLossFlat)
    learn.fit(5)
    loss, right, f1 = learn.validate()
    with torch.no_grad():
        outputs = torch.cat([model(xb) for xb, _ in dls.valid])
    targets = expected(dls.valid.dataset.files)
    assert loss == pytest.approx(float(F.binary_cross_entropy_with_logits(outputs, targets)), rel=1e-5)
    assert right > 0.9 and f1 > 0.8
    names, said, probabilities = learn.predict(flags / "images" / "05.png")
    assert names == ["blue", "red"] and said.tolist() == [True, False, True]
    torch.testing.assert_close(
        probabilities, model(dls.test_dl([flags / "images" / "05.png"]).one_batch()[0])[0].sigmoid()
    )
    preds, targs, decoded = learn.get_preds(with_decoded=True)
    assert torch.equal(targs, targets) and torch.equal(decoded, preds > 0.5)


def test_titles_join_labels_and_wrong_sets_are_red(flags):
    dls = made(flags, "csv")
    learn = Learner(dls, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 3)))
    with torch.no_grad():
        learn.model[1].weight.zero_()
        learn.model[1].bias.copy_(torch.tensor([1.0, -1.0, 1.0]))  # always blue and red
    titles = {ax.get_title() for ax in dls.valid.show_batch(max_n=4).axes}
    assert titles <= {"", *(";".join(by_number(f"{i}.png")) for i in range(8))} and len(titles) > 1
    figure = learn.show_results(max_n=9)
    shown = [(ax.get_title().split("\n"), ax.title.get_color()) for ax in figure.axes if "\n" in ax.get_title()]
    assert len(shown) == 9 and {pair[1] for pair, _ in shown} == {"blue;red"}
    assert all((colour == "black") == (pair[0] == pair[1]) for pair, colour in shown)
    plt.close("all")


def test_a_pretrained_network_learns_labels_too(flags):
    dls = made(flags, "csv")
    learn = vision_learner(dls, "efficientnet_lite0", metrics=accuracy_multi, splitter=default_split)
    learn.fit(1)
    assert learn.get_preds()[0].shape == (dls.valid.n, 3)


def test_the_command_line_trains_and_predicts_labels(flags):
    options = "--image-folder images --epochs 8 --out run"
    command = ["train", "labels.csv", "--label-delim", " ", *options.split()]
    done = pellucid(*command)
    assert done.returncode == 0, done.stderr
    assert "3 labels" in done.stdout and "of the labels right and a mean F1 of" in done.stdout
    assert "stratified split: " in done.stdout
    run = load_run("run")
    assert run.vocab == list(COLOURS) and run.settings["activation"] == "sigmoid" and run.settings["multi"] is True
    (answer,) = run.predict("images/05.png")
    assert set(answer.probabilities) == set(COLOURS)
    assert answer.labels == [name for name, value in answer.probabilities.items() if value > 0.5]
    assert answer.label == ";".join(answer.labels)
    (found,) = json.loads(pellucid("predict", "run", "images/05.png", "--json").stdout)
    assert found["labels"] == answer.labels and found["label"] == answer.label


def test_a_run_of_columns_keeps_labels_and_a_learner_saves_one(flags):
    settings = Settings(
        "columns.csv", label_col="blue,green,red", image_folder="images", epochs=1, device="cpu", workers=1
    )
    run = train(settings, "run")
    assert run.vocab == list(COLOURS)
    assert load_run("run").predict("images/00.png")[0].probabilities == run.predict("images/00.png")[0].probabilities
    with pytest.raises(UsageError, match=r"balance 'loss' .* is for one class an image"):
        train(Settings("labels.csv", label_delim=" ", image_folder="images", balance="loss", device="cpu"), "other")


def test_groups_and_shares_hold_for_labels_too(flags, capsys):
    dls = ImageDataLoaders.from_csv(flags, label_delim=" ", folder="images", group_by=r"(\d)\.png", seed=1, **OPTIONS)
    last = [{Path(file).stem[-1] for file in loader.dataset.files} for loader in dls]
    assert not last[0] & last[1]
    said = capsys.readouterr().out
    assert "split by group: 2 of 10 groups validate" in said and "several classes" not in said


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MultiCategoryBlock(encoded=True), UsageError, "needs the vocab"),
        (lambda: MultiCategoryBlock(vocab=["a", "a"]), UsageError, "the label 'a' twice"),
        (lambda: MultiCategoryBlock(add_na=True), UsageError, "may have no label at all"),
        (lambda: declared(lambda f: "a b"), DataError, r"get_y returned 'a b'.*label_delim=' '"),
        (lambda: declared(lambda f: []), DataError, "none of 39 training images has a label"),
        (lambda: declared(lambda f: [1.5]), DataError, "a label must be a string or an integer"),
        (
            lambda: declared(lambda f: ["a"] if f.stem < "47" else [f.stem]),
            DataError,
            "'47' does not occur in training",
        ),
        (lambda: declared(lambda f: [0, 2, 1], encoded=True, vocab=COLOURS), DataError, "0 or 1 for each of 3 labels"),
        (lambda: declared(by_number, vocab=["blue", "red"]), DataError, "not in the vocab of MultiCategoryBlock"),
        (
            lambda: DataBlock((ImageBlock, ImageBlock)),
            UsageError,
            r"\(ImageBlock, CategoryBlock\) or MultiCategoryBlock",
        ),
        (
            lambda: DataBlock((ImageBlock, MultiCategoryBlock), get_y=by_number).weighted_dataloaders(
                "images", **OPTIONS
            ),
            UsageError,
            "give wgts, one an image",
        ),
    ],
)
def test_labels_that_cannot_be_are_explained(flags, make, error, message):
    with pytest.raises(error, match=message):
        make()


def declared(get_y, **block):
    splitter = lambda items: (list(range(39)), list(range(39, 48)))
    return DataBlock((ImageBlock, MultiCategoryBlock(**block)), get_y=get_y, splitter=splitter).datasets("images")


def test_one_file_has_one_set_of_labels(flags):
    lines = (flags / "labels.csv").read_text().splitlines()
    (flags / "labels.csv").write_text("\n".join([*lines, "05.png,green"]))
    with pytest.raises(DataError, match=r"05\.png is \['blue', 'red'\] in line 7 and .* list all of its labels in one"):
        made(flags, "csv")
    files = [flags / "images" / "05.png"] * 2
    answers = iter([["blue", "red"], ["red"]])
    block = DataBlock(
        (ImageBlock, MultiCategoryBlock), get_y=lambda item: next(answers), splitter=lambda items: ([0], [1])
    )
    with pytest.raises(DataError, match="listed twice"):
        block.datasets(files)


def test_a_summary_counts_each_label(flags, capsys):
    DataBlock((ImageBlock, MultiCategoryBlock), get_y=by_number, item_tfms=Resize(16)).summary(flags / "images")
    said = capsys.readouterr().out
    assert "3: 'blue'" in said and "MultiCategoryBlock" in repr(DataBlock((ImageBlock, MultiCategoryBlock), get_y=len))
    assert DataBlock((ImageBlock, CategoryBlock), get_y=len)


@pytest.mark.parametrize("name", ["F1Score", "Precision", "Recall", "Jaccard", "FBeta"])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_scores_are_those_of_each_label_over_the_whole_set(name, average):
    import pellucid.vision.all as everything

    torch.manual_seed(0)
    pred, targ = torch.randn(60, 5), (torch.rand(60, 5) < torch.tensor([0.5, 0.2, 0.9, 0.3, 0.0])).float()
    pred[:, 4] = -1  # a label that is never there and never said counts as 0
    options = {"beta": 2.0} if name == "FBeta" else {}
    metric = getattr(everything, f"{name}Multi")(average=average, thresh=0.4, **options)
    metric.reset()
    for part in (slice(7), slice(7, 60)):
        metric.update(pred[part], targ[part])
    said, there = (pred.sigmoid() > 0.4).numpy(), targ.bool().numpy()
    if average == "micro":
        said, there = said.reshape(-1, 1), there.reshape(-1, 1)
    both, n_said, n_there = (said & there).sum(0), said.sum(0), there.sum(0)
    above, below = {
        "F1Score": (2 * both, n_said + n_there),
        "Precision": (both, n_said),
        "Recall": (both, n_there),
        "Jaccard": (both, (said | there).sum(0)),
        "FBeta": (5 * both, 4 * n_there + n_said),
    }[name]
    each = [a / b if b else 0 for a, b in zip(above, below, strict=True)]
    weights = n_there if average == "weighted" else None
    assert metric.compute() == pytest.approx(np.average(each, weights=weights))


def test_the_hamming_loss_is_the_share_of_wrong_answers():
    from pellucid.vision.all import HammingLossMulti

    pred, targ = torch.tensor([[2.0, -1.0], [0.1, 3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert float(HammingLossMulti()(pred, targ)) == 0.5
    with pytest.raises(UsageError, match="macro, micro or weighted"):
        F1ScoreMulti(average="binary")
    with pytest.raises(UsageError, match=r"\(batch, label\), one for each answer"):
        F1ScoreMulti()(pred[0], targ[0])
