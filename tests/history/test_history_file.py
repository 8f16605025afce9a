"""History files of others: each is read rightly or refused in words; nothing hangs, runs or fills memory."""

from __future__ import annotations

import json
import os
import pickle
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

import pellucid
from pellucid.errors import UsageError
from pellucid.history.file import FILE, GRADIENTS


def recorded(folder: Path) -> pellucid.History:
    """A small real history with every kind of array, saved."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with pellucid.watch(model, opt, loss=True) as seen:
        for _ in range(3):
            model(torch.randn(4, 1, 4, 4)).square().mean().backward()
            opt.step()
        model.eval()
        model(torch.randn(4, 1, 4, 4))
    seen.history.save(folder)
    return seen.history


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    recorded(folder)
    return folder / FILE


def parts(file: Path) -> tuple[dict[str, np.ndarray], dict]:
    raw = file.read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    return {k: v.copy() for k, v in load_file(file).items()}, json.loads(header["__metadata__"]["pellucid"])


def described(**changes):
    return lambda arrays, description: description.update(changes)


def layer(**changes):
    return lambda arrays, description: description["layers"][0].update(changes)


def array(name, change):
    def do(arrays, description):
        arrays[name] = np.ascontiguousarray(change(arrays[name]))

    return do


def put(name, place, value):
    def do(arrays, description):
        arrays[name][place] = value

    return do


def without(name):
    return lambda arrays, description: arrays.pop(name)


def also(name, value):
    return lambda arrays, description: arrays.update({name: value})


def forget(key):
    return lambda arrays, description: description.pop(key)


EDITS = {
    "schema 0": described(schema=0),
    "schema −1": described(schema=-1),
    "schema newer": described(schema=3),
    "schema text": described(schema="1"),
    "schema true": described(schema=True),
    "schema fraction": described(schema=1.5),
    "schema null": described(schema=None),
    "no schema": forget("schema"),
    "no layers": forget("layers"),
    "layers empty": described(layers=[]),
    "layers a text": described(layers="0123"),
    "layers of numbers": described(layers=[1, 2, 3]),
    "fewer layers": lambda arrays, description: description["layers"].pop(),
    "layer twice": layer(name="3"),
    "layer name number": layer(name=7),
    "layer kind null": layer(kind=None),
    "layer role": layer(role="king"),
    "layer role list": layer(role=["layer"]),
    "layer shape text": layer(shape="4"),
    "layer shape negative": layer(shape=[-1]),
    "layer shape fraction": layer(shape=[2.5]),
    "layer shape nested": layer(shape=[[1]]),
    "layer more": layer(password="x"),
    "layer less": lambda arrays, description: description["layers"][0].pop("kind"),
    "no params": forget("params"),
    "params a number": described(params=4),
    "params of numbers": described(params=[1, 2, 3, 4]),
    "params twice": described(params=["a", "a", "b", "c"]),
    "params more": lambda arrays, description: description["params"].append("more"),
    "range": described(hist_range=[-1, 1]),
    "no range": forget("hist_range"),
    "no steps": without("train.steps"),
    "no mean": without("train.mean"),
    "no valid": without("valid.count"),
    "hist of one phase": without("valid.hist"),
    "no gradients": without("grad.norm"),
    "kernels alone": without("kernel_steps"),
    "kernel steps alone": without("kernels"),
    "foreign array": also("weights", np.zeros(3, np.float32)),
    "foreign statistic": also("train.median", np.zeros((3, 3), np.float32)),
    "steps flat": array("train.steps", np.ravel),
    "steps float": array("train.steps", lambda x: x.astype(np.float64)),
    "steps int32": array("train.steps", lambda x: x.astype(np.int32)),
    "steps backwards": array("train.steps", lambda x: x[::-1]),
    "steps twice": put("train.steps", 1, [0, 1]),
    "steps empty": put("train.steps", (1, 1), 1),
    "steps negative": put("train.steps", (0, 0), -5),
    "columns fewer": array("train.mean", lambda x: x[:, :2]),
    "columns none": array("train.std", lambda x: x[:, :0]),
    "rows more": array("train.count", lambda x: np.concatenate([x, x])),
    "axes": array("train.min", lambda x: x[None]),
    "scalar": array("train.max", lambda x: x[0, 0]),
    "mean float64": array("train.mean", lambda x: x.astype(np.float64)),
    "mean int8": array("train.mean", lambda x: x.astype(np.int8)),
    "mean float16": array("train.mean", lambda x: x.astype(np.float16)),
    "count float": array("train.count", lambda x: x.astype(np.float32)),
    "bins 40": array("train.hist", lambda x: x[:, :, :40]),
    "bins uint8": array("train.hist", lambda x: x.astype(np.uint8)),
    "gradient rows": array("grad.norm", lambda x: x[:2]),
    "loss axes": array("loss", lambda x: x[None]),
    "loss columns": array("loss", lambda x: x[:1]),
    "hyper flat": array("hyper.lr", np.ravel),
    "hyper no groups": array("hyper.lr", lambda x: x[:0]),
    "kernels flat": array("kernels", lambda x: x.reshape(len(x), -1)),
    "kernels none": array("kernels", lambda x: x[:, :0]),
    "kernels more": array("kernels", lambda x: np.concatenate([x, x])),
    "kernel steps float": array("kernel_steps", lambda x: x.astype(np.float32)),
    "kernel steps backwards": put("kernel_steps", 0, 99),
    "mean nan": put("train.mean", (0, 0), np.nan),
    "std nan": put("valid.std", (0, 0), np.nan),
    "std negative": put("train.std", (0, 0), -1),
    "min above max": put("train.min", (0, 0), 1e9),
    "mean of nothing": lambda arrays, description: [
        put(f"train.{name}", (0, 0), 0)(arrays, description)
        for name in ("count", "zero", "near_zero", "near_zero_abs", "underflow", "overflow", "hist")
    ],
    "count negative": put("train.count", (0, 0), -4),
    "count huge": put("train.count", (0, 0), 2**62),
    "nonfinite negative": put("train.nonfinite", (0, 0), -1),
    "near zero more than all": put("train.near_zero", (0, 0), 10**6),
    "zero more than near": put("train.zero", (0, 0), 10**6),
    "overflow more than all": put("train.overflow", (0, 0), 10**6),
    "bin negative": put("train.hist", (0, 0, 3), -1),
    "bin too many": put("train.hist", (0, 0, 3), 10**6),
    "bins wrap": put("train.hist", (0, 0, slice(None)), 2**62),
}


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        pellucid.History.load(path)
    text = str(caught.value)
    assert text.isprintable()
    assert path.name[:20] in text
    return text


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_history_is_refused(saved, tmp_path, edit):
    arrays, description = parts(saved)
    edit(arrays, description)
    save_file(arrays, tmp_path / FILE, metadata={"pellucid": json.dumps(description)})
    text = refused(tmp_path / FILE)
    assert "damaged, or not a history" in text or "its schema is 3" in text


DESCRIPTIONS = ["", "{", "null", "[]", "3", '"x"', "[" * 100_000, '{"schema": ' + "9" * 5000 + "}", "\x00", "\x1b[31m"]


@pytest.mark.parametrize("text", DESCRIPTIONS, ids=range(len(DESCRIPTIONS)))
def test_a_description_that_is_no_description(saved, tmp_path, text):
    save_file(load_file(saved), tmp_path / FILE, metadata={"pellucid": text})
    refused(tmp_path / FILE)


def bytes_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def cut(where: float):
    return lambda whole: whole[: int(len(whole) * where)]


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


BYTES = {
    "empty": lambda whole: b"",
    "seven bytes": lambda whole: whole[:7],
    "length only": lambda whole: whole[:8],
    "half the header": cut(0.05),
    "half": cut(0.5),
    "last byte": lambda whole: whole[:-1],
    "a byte more": lambda whole: whole + b"\0",
    "twice": lambda whole: whole + whole,
    "length huge": lambda whole: struct.pack("<Q", 2**63) + whole[8:],
    "length zero": lambda whole: struct.pack("<Q", 0) + whole[8:],
    "header no JSON": lambda whole: bytes_of(b"{{{{"),
    "header list": lambda whole: bytes_of([]),
    "header not UTF-8": lambda whole: bytes_of(b'{"\xff\xfe": 1}'),
    "six gigabytes claimed": lambda whole: bytes_of(
        {"train.mean": {"dtype": "F32", "shape": [3 << 29], "data_offsets": [0, 6 << 30]}}
    ),
    "size overflows": lambda whole: bytes_of(
        {"train.mean": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 0]}}
    ),
    "unknown type": lambda whole: bytes_of({"x": {"dtype": "F13", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "no description": lambda whole: bytes_of({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    "zeros": lambda whole: b"\0" * 5000,
    "text": lambda whole: b"hello\n" * 100,
    "image": lambda whole: b"\x89PNG\r\n\x1a\n" + b"\0" * 100,
    "zip": lambda whole: b"PK\x03\x04" + b"\0" * 100,
    "pickle": lambda whole: pickle.dumps(Bomb()),
}


@pytest.mark.parametrize("change", BYTES.values(), ids=BYTES)
def test_a_damaged_or_foreign_file_is_refused(saved, tmp_path, change, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_bytes(change(saved.read_bytes()))
    refused(tmp_path / FILE)
    assert not Path("executed").exists()


def fifo(place: Path) -> Path:
    os.mkfifo(place / FILE)
    return place


def sparse(place: Path) -> Path:
    (place / FILE).touch()
    os.truncate(place / FILE, 9 << 30)
    return place


def folder_of_that_name(place: Path) -> Path:
    (place / FILE).mkdir()
    return place


def loop(place: Path) -> Path:
    (place / FILE).symlink_to(place / FILE)
    return place


PLACES = {
    "FIFO": fifo,
    "sparse": sparse,
    "folder": folder_of_that_name,
    "symlink to itself": loop,
    "nothing": lambda place: place,
    "device": lambda place: Path("/dev/zero"),
    "no such folder": lambda place: place / "none",
    "null character": lambda place: place / "a\0b",
    "name too long": lambda place: place / ("x" * 300),
    "control character": lambda place: place / "a\x1b[31mb",
}


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_what_is_no_file_is_refused(tmp_path, make):
    with pytest.raises(UsageError) as caught:
        pellucid.History.load(make(tmp_path))
    assert str(caught.value).isprintable()


def test_what_the_watch_wrote_is_read_back_and_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        history = recorded(tmp_path)
    finally:
        os.umask(before)
    again = pellucid.History.load(tmp_path)
    assert again.layers == history.layers
    assert again.params == history.params
    assert set(GRADIENTS) < set(again.series)
    for name, value in history.to_arrays().items():
        np.testing.assert_array_equal(value, again.to_arrays()[name])
    assert {file.name for file in tmp_path.iterdir()} == {FILE, "history.json"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}


@pytest.mark.parametrize(
    "make", [lambda folder: folder.write_text("x"), lambda folder: (folder / FILE).mkdir(parents=True)]
)
def test_a_history_that_cannot_be_written_is_reported(saved, tmp_path, make):
    history = pellucid.History.load(saved)
    make(tmp_path / "out")
    with pytest.raises(UsageError, match="the history cannot be written"):
        history.save(tmp_path / "out")
    assert not list(tmp_path.rglob("*.tmp"))
