"""Transforms defined in this one file: they train, are shown undone, are kept in run folders and predict the same."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from pellucid import cli
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW, Resize
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.nn.models import create_model, simple_cnn
from pellucid.runs import load_run
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.learner import Learner

HERE = __name__


@dataclass
class Gamma:
    """A batch transform as simple as can be: its fields are what it was made with."""

    power: float

    def __call__(self, x):
        return x**self.power

    def decode(self, x):
        return x ** (1 / self.power)


class Middle:
    """Cuts the border off, and says itself what it was made with."""

    def __init__(self, border: int):
        self.border, self.calls = border, 0

    def __call__(self, x):
        self.calls += 1
        return x[..., self.border : -self.border, self.border : -self.border]

    def to_json(self):
        return {"border": self.border}


class Mirror:
    """Of one image, and without anything to be made with."""

    def __call__(self, image):
        return ImageOps.mirror(image)


def invert(x):
    return 1 - x


@dataclass
class Turn:
    quarters: int

    def __call__(self, image):
        return image.rotate(90 * self.quarters)


class Forgetful(Middle):
    def to_json(self):
        return {"border": 1}


class Silent:
    def __init__(self, power):
        self.power = power

    def __call__(self, x):
        return x**self.power


class Outer:
    class Inner(Gamma):
        pass


def sometimes(x):
    return x.flip(-1) if random.random() < 0.5 else x


sometimes.split_idx = 0  # type: ignore[attr-defined]


@pytest.fixture
def digits(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(24):
        file = tmp_path / "digits" / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(file)
    return tmp_path / "digits"


def learner(digits: Path, side: int = 8, **loaders: Any) -> Learner:
    dls = ImageDataLoaders.from_folder(digits, valid_pct=0.25, seed=0, img_cls=PILImageBW, bs=8, **loaders)
    torch.manual_seed(0)
    learn = Learner(dls, simple_cnn(1, 2, side), F.cross_entropy)
    learn.remove_cb(ProgressCallback)
    learn.fit(1, 0.01)
    return learn


def named(*names: str) -> list[str]:
    return [f"{HERE}:{name}" for name in names]


WAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "one of a batch": ({"batch_tfms": Gamma(0.5)}, named("Gamma")),
    "a function": ({"batch_tfms": invert}, named("invert")),
    "several, in order": (
        {"batch_tfms": [Gamma(2.0), Normalize(), Gamma(3.0), invert, Outer.Inner(1.0)]},
        named("Gamma", "invert", "Outer.Inner"),
    ),
    "for validation only": ({"batch_tfms": [sometimes, Normalize(), Middle(1)]}, named("Middle")),
    "of an image": ({"item_tfms": Mirror()}, named("Mirror")),
    "of an image, in order": (
        {"item_tfms": [Resize((8, 6), "squish"), Turn(1), Resize(8), Mirror()], "batch_tfms": Normalize()},
        named("Turn", "Mirror"),
    ),
    "before a Resize": ({"item_tfms": [Turn(1), Resize(8, "pad", pad_mode="zeros")]}, named("Turn")),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_run_folder_rebuilds_the_exact_pipeline(digits, tmp_path, way):
    options, names = way
    learn = learner(digits, **copy.deepcopy(options))
    folder = learn.save_run(tmp_path / "run", "simple_cnn")
    files = learn.dls.valid.items
    for allow in ((), names[1:]):
        with pytest.raises(UsageError, match=rf"a transform of its images is {names[0]}.*--allow {names[0]}"):
            load_run(folder, allow=allow)
        with pytest.raises(UsageError, match="code outside pellucid"):
            load_run(folder, simple_cnn(1, 2, 8), allow=allow)
    run = load_run(folder, allow=names)
    assert torch.equal(run.batch(files), torch.cat([xb for xb, _ in learn.dls.valid]))
    expected = learn.get_preds()[0]
    found = torch.tensor([[answer.probabilities[name] for name in "ab"] for answer in run.predict(files)])
    torch.testing.assert_close(found, expected)
    assert run.settings["input_shape"] == list(learn.dls.one_batch()[0].shape[1:])
    assert run.summary().rows  # the model takes what the pipeline gives


def test_what_is_written_can_be_read_without_pellucid(digits, tmp_path):
    tfms = {"item_tfms": [Resize((8, 6)), Turn(1)], "batch_tfms": [Normalize(0.5, 0.25), Middle(1), invert]}
    folder = learner(digits, **tfms).save_run(tmp_path / "run", "simple_cnn")
    run = json.loads((folder / "run.json").read_text())
    assert run["decoding"] == {
        "mode": "L",
        "resize": {"size": [8, 6], "method": "crop"},
        "transforms": [{"name": f"{HERE}:Turn", "arguments": {"quarters": 1}}],
    }
    assert run["batch_tfms"] == [
        {"name": "Normalize", "arguments": {"mean": [0.5], "std": [0.25]}},
        {"name": f"{HERE}:Middle", "arguments": {"border": 1}},
        {"name": f"{HERE}:invert"},
    ]
    assert run["version"] == 2 and run["image_shape"] == [1, 8, 6] and run["input_shape"] == [1, 6, 4]


def test_pictures_are_shown_undone(digits):
    raw = ImageDataLoaders.from_folder(digits, valid_pct=0.25, seed=0, img_cls=PILImageBW, bs=8, shuffle=False)
    dls = ImageDataLoaders.from_folder(
        digits, valid_pct=0.25, seed=0, img_cls=PILImageBW, bs=8, shuffle=False, batch_tfms=[Gamma(2.0), Normalize()]
    )
    expected = raw.one_batch()[0][:4, 0]
    figure = dls.show_batch(max_n=4)
    shown = torch.stack([torch.as_tensor(ax.images[0].get_array().data) for ax in figure.axes])
    torch.testing.assert_close(shown, expected, atol=1e-3, rtol=0)


def test_the_command_line_predicts_with_it(digits, tmp_path, monkeypatch, capsys):
    learn = learner(digits, batch_tfms=[Normalize(), Gamma(3.0)])
    folder, file = learn.save_run(tmp_path / "run", "simple_cnn"), learn.dls.valid.items[0]
    for words, code in (([], 2), (["--allow", f"{HERE}:Gamma"], 0)):
        monkeypatch.setattr(sys, "argv", ["pellucid", "predict", str(folder), str(file), "--json", *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
        out, err = capsys.readouterr()
        assert (f"--allow {HERE}:Gamma" in err) if code else json.loads(out)[0]["probabilities"]
    probability = json.loads(out)[0]["probabilities"]["a"]
    assert probability == pytest.approx(learn.get_preds(dl=learn.dls.test_dl([file]))[0][0, 0].item(), abs=1e-6)


def test_another_process_finds_it_in_the_working_folder(digits, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("def brighten(x):\n    return (1.5 * x).clamp(max=1)\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        learner(digits, batch_tfms=import_module("own").brighten).save_run(tmp_path / "run", "simple_cnn")
    del sys.modules["own"]
    command = [sys.executable, "-m", "pellucid", "predict", "run", "digits/a/0.png", "--allow", "own:brighten"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("digits/a/0.png: "), done.stderr


CANNOT = {
    "a lambda": (
        lambda x: 1 - x,
        "<lambda> cannot be imported .*: put the function or class that is the transform into a module",
    ),
    "without a word of what it holds": (Silent(2.0), r"Silent does not say what it was made with \(it holds power\)"),
    "a wrong word": (Forgetful(2), "Forgetful made again by .* gives something else"),
    "a module": (
        nn.Conv2d(1, 1, 1).requires_grad_(False),
        "Conv2d does not say what it was made with .* more.*to_json",
    ),
    "what is not JSON": (Gamma(torch.tensor(2.0)), "arguments of Gamma must fit into JSON"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("transform", "why"), CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_made_again_is_refused(digits, tmp_path, transform, why):
    learn = learner(digits, batch_tfms=[Normalize(), transform])
    with pytest.raises(UsageError, match=f"its predictions would be wrong: {why}"):
        learn.save_run(tmp_path / "run", "simple_cnn")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def folder(digits, tmp_path) -> Path:
    return learner(digits, batch_tfms=[Normalize(), Gamma(2.0)]).save_run(tmp_path / "run", "simple_cnn")


def changed(folder: Path, **parts: Any) -> None:
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | parts))


def listed(name: Any, **arguments: Any) -> list[dict[str, Any]]:
    return [{"name": name, "arguments": arguments}]


DAMAGED = {
    "no list": {"batch_tfms": {"name": "Normalize"}},
    "no name": {"batch_tfms": [{"arguments": {}}]},
    "a number": {"batch_tfms": listed(5)},
    "arguments of a list": {"batch_tfms": [{"name": "Normalize", "arguments": [1]}]},
    "something more": {"batch_tfms": [{"name": "Normalize", "arguments": {}, "code": "1"}]},
    "no arguments": {"batch_tfms": [{"name": "Normalize"}]},
    "no such transform": {"batch_tfms": listed("Sharpen")},
    "of images, not of batches": {"batch_tfms": listed("Resize", size=8)},
    "of batches, not of images": {"decoding": {"mode": "L", "resize": None, "transforms": listed("Normalize")}},
    "an argument too many": {"batch_tfms": listed("Normalize", mean=[0.1], std=[0.1], shift=1)},
    "an impossible number": {"batch_tfms": listed("Normalize", mean=[0.1], std=[-1])},
    "a huge number": {"batch_tfms": listed("Normalize", mean=[10**400], std=[1])},
    "three channels": {"batch_tfms": listed("Normalize", mean=[0.1] * 3, std=[1] * 3)},
    "without statistics": {"batch_tfms": listed("Normalize", mean=None, std=None)},
    "no transforms": {"decoding": {"mode": "L", "resize": None, "transforms": 5}},
    "another size": {"image_shape": [1, 8, 8], "decoding": {"mode": "L", "resize": {"size": 9, "method": "crop"}}},
    "no shape": {"image_shape": [1, 0, 8]},
}


@pytest.mark.parametrize("parts", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_pipeline_is_an_error_in_our_words(folder, parts):
    changed(folder, **parts)
    with pytest.raises(UsageError, match=r"run\.json: "):
        load_run(folder, allow=named("Gamma"))


@pytest.mark.parametrize("name", ["decoding", "image_shape", "batch_tfms"])
def test_nothing_is_dropped_in_silence(folder, name):
    run = json.loads((folder / "run.json").read_text())
    del run[name]
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(UsageError, match=f"damaged, '{name}' is missing"):
        load_run(folder, allow=named("Gamma"))


def test_a_strangers_transform_runs_no_code(folder, tmp_path, monkeypatch):
    mark = tmp_path / "executed"
    trap = f"from pathlib import Path\nPath({str(mark)!r}).touch()\ndef make(x): return x\n"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "trap_beside.py").write_text(trap)
    (folder / "trap_within.py").write_text(trap)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.syspath_prepend(folder)
    for name, arguments in (("trap_beside:make", None), ("os:system", {"command": f"touch {mark}"}), (":", {})):
        value = {"name": name} | ({} if arguments is None else {"arguments": arguments})
        for part in ({"batch_tfms": [value]}, {"decoding": {"mode": "L", "resize": None, "transforms": [value]}}):
            changed(folder, **{"batch_tfms": []} | part)
            for allow in ((), named("Gamma"), "os:System", "trap_beside"):
                with pytest.raises(UsageError, match="code outside pellucid"):
                    load_run(folder, allow=allow)
    changed(folder, batch_tfms=[{"name": "trap_within:make"}], decoding={"mode": "L", "resize": None})
    with pytest.raises(UsageError, match="out of the run folder itself"):
        load_run(folder, allow="trap_within:make")
    assert not mark.exists() and "trap_beside" not in sys.modules


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"name": f"{HERE}:Nothing", "arguments": {}}, "cannot be imported"),
        ({"name": f"{HERE}:HERE"}, "is no function or class"),
        ({"name": f"{HERE}:Gamma", "arguments": {"strength": 1}}, r"Gamma\(strength=1\) cannot be made"),
        ({"name": f"{HERE}:named", "arguments": {}}, "is no transform but a list"),
    ],
)
def test_an_allowed_transform_that_cannot_be_made(folder, value, message):
    changed(folder, batch_tfms=[value])
    with pytest.raises(UsageError, match=message):
        load_run(folder, allow=[value["name"]])


VERSION_1 = """{
  "version": 1,
  "settings": {"source": "digits", "arch": "simple_cnn", "epochs": 1, "lr": 0.005, "bs": 4, "size": 8,
    "valid_pct": null, "seed": 42, "device": "cpu", "workers": null, "schedule": "one_cycle", "on_error": "raise",
    "stats": false, "path_col": null, "label_col": null, "suffix": "", "image_folder": null},
  "versions": {"pellucid": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "pillow": "13.0.0", "python": "3.11.7"},
  "activation": "softmax",
  "input_shape": [3, 8, 8],
  "vocab": ["a", "b"],
  "decoding": {"mode": "RGB", "resize": {"size": 8, "method": "METHOD"}},
  "normalize": {"mean": [0.49, 0.5, 0.51], "std": [0.15, 0.16, 0.17]},
  "n_train": 20,
  "n_valid": 4,
  "majority": ["b", 0.75],
  "results": [{"train_loss": 0.6984201933092838, "valid_loss": 0.7492609024047852, "accuracy": 0.25,
    "seconds": 0.04540850699777366}]
}"""


@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
def test_a_folder_of_version_1_still_opens(tmp_path, method):
    """As `pellucid train digits --size 8` wrote it before transforms had names."""
    torch.manual_seed(0)
    model = create_model("simple_cnn", 3, 2, 8).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "run.json").write_text(VERSION_1.replace("METHOD", method))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 10, 3), np.uint8))
    resized = {
        "crop": ImageOps.fit(image, (8, 8), Image.Resampling.BILINEAR),
        "squish": image.resize((8, 8), Image.Resampling.BILINEAR),
        "pad": ImageOps.pad(image, (8, 8), Image.Resampling.BILINEAR),
    }[method]
    x = (np.asarray(resized) / 255 - [0.49, 0.5, 0.51]) / [0.15, 0.16, 0.17]
    run = load_run(tmp_path)
    seen = run.batch([image])
    np.testing.assert_allclose(seen[0].movedim(0, -1).numpy(), x, atol=1e-5)
    (answer,) = run.predict([image])
    with torch.no_grad():
        expected = model(seen).softmax(1)[0, 0].item()
    assert answer.probabilities["a"] == pytest.approx(expected, abs=1e-6)
