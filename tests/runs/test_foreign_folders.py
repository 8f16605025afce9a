"""Run folders of strangers: each file of one changed in many ways, and what opening it then says."""

from __future__ import annotations

import copy
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid.errors import UsageError
from pellucid.nn.models import create_model
from pellucid.runs import load_history, load_record, load_run

RUN: dict[str, Any] = {
    "version": 1,
    "settings": {"arch": "simple_cnn", "lr": 0.1},
    "versions": {"pellucid": "0.1.0"},
    "activation": "softmax",
    "input_shape": [1, 28, 28],
    "vocab": ["a", "b"],
    "decoding": {"mode": "L", "resize": {"size": 28, "method": "crop"}},
    "normalize": {"mean": [0.1], "std": [0.3]},
    "n_train": 8,
    "n_valid": 4,
    "majority": ["a", 0.5],
    "results": [{"train_loss": 0.1, "valid_loss": None, "accuracy": 0.9, "seconds": 1.0}],
    "epoch": 0,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run folder with first weights, as `pellucid train` would write it."""
    run = tmp_path / "run"
    run.mkdir()
    torch.manual_seed(0)
    save_file(dict(create_model("simple_cnn", 1, 2, 28).state_dict()), run / "model.safetensors")
    (run / "run.json").write_text(json.dumps(RUN))
    return run


class Waited(BaseException):
    """No OSError, as TimeoutError is one: nothing may take it for a damaged file."""


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Opening a pipe would wait for ever."""

    def stop(*_: object) -> None:
        raise Waited

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_the_folder_itself_opens(folder):
    run = load_run(folder)
    assert run.vocab == ["a", "b"] and not run.model.training
    rng = np.random.default_rng(0)
    (answer,) = run.predict([rng.integers(0, 255, (28, 28), np.uint8)])
    assert sum(answer.probabilities.values()) == pytest.approx(1)


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(run: dict[str, Any]) -> None:
        for key in path[:-1]:
            run = run[key]
        run[path[-1]] = value

    return change


def drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(run: dict[str, Any]) -> None:
        for key in path[:-1]:
            run = run[key]
        del run[path[-1]]

    return change


NOT_A_SHAPE = [None, 5, "28", [], {}, [1, 28], [28.0, 28.0, 1.0], ["1", "28", "28"], [1, 0, 28], [1, -28, 28]]
NOT_A_SHAPE += [
    [True, 28, 28],
    [1, 10**9, 10**9],
    [1, 8192, 8192],
    [3, 28, 28],
    [1, 28, 29],
    [10**30, 1, 1],
    [1, 4096, 4096],
]
NOT_A_VOCAB = [None, "ab", [], {}, ["a", "a"], ["a", None], ["a", ["b"]], ["a", 1.5], [1, "1"], ["a", True], ["a"] * 3]
NOT_A_VOCAB += [["a"], [str(i) for i in range(100_000)]]
NOT_A_MODE = [
    {"mode": "CMYK", "resize": None},
    {"mode": "RGB", "resize": None},
    {"mode": ["L"], "resize": None},
    {},
    [],
    "L",
]
NOT_A_RESIZE = ["28", 28, [28], {"size": 28}, {"method": "crop"}, {"size": 0, "method": "crop"}]
NOT_A_RESIZE += [{"size": [28], "method": "crop"}, {"size": 28, "method": "melt"}, {"size": 10**12, "method": "crop"}]
NOT_A_RESIZE += [{"size": 56, "method": "crop"}, {"size": "28", "method": "crop"}, {"size": True, "method": "crop"}]
NOT_A_SCALE = [None, {}, [], {"mean": [0.1]}, {"mean": [0.1], "std": [0.0]}, {"mean": [0.1], "std": [-1.0]}]
NOT_A_SCALE += [
    {"mean": [0.1], "std": []},
    {"mean": [], "std": []},
    {"mean": 0.1, "std": 0.3},
    {"mean": ["a"], "std": ["b"]},
]
NOT_A_SCALE += [
    {"mean": [0.1] * 3, "std": [0.3] * 3},
    {"mean": [float("nan")], "std": [0.3]},
    {"mean": [None], "std": [0.3]},
]
NOT_A_SCALE += [{"mean": [0.1], "std": [float("inf")]}, {"mean": [0.1], "std": [10**400]}, {"mean": None, "std": None}]

CHANGES = [
    *(put("input_shape", value=v) for v in NOT_A_SHAPE),
    *(put("vocab", value=v) for v in NOT_A_VOCAB),
    *(put("decoding", value=v) for v in NOT_A_MODE),
    *(put("decoding", "resize", value=v) for v in NOT_A_RESIZE),
    *(put("normalize", value=v) for v in NOT_A_SCALE),
    *(put("version", value=v) for v in (2, 0, -1, "1", 1.0, None, [1], True)),
    *(put("settings", value=v) for v in (None, [], "simple_cnn", {}, {"arch": 5}, {"arch": ["simple_cnn"]})),
    *(put("settings", "arch", value=v) for v in ("resnet9000", "", "__class__", "small_resnet", "plain_cnn")),
    *(put("settings", "arguments", value=v) for v in ([], "width", {"colour": 1}, {"width": 10**7}, {"width": "8"})),
    *(put("results", value=v) for v in (None, {}, [1], ["a"], [{"accuracy": "high"}], [{"accuracy": [1]}])),
    *(put(name, value=v) for name in ("n_train", "n_valid") for v in (-1, 1.5, "8", None)),
    *(put("epoch", value=v) for v in (1, -1, 0.0, "0", None, True)),
    *(put("activation", value=v) for v in ("relu", 5, ["softmax"], {})),
    *(put("majority", value=v) for v in (None, "a", ["a"], [1, 0.5], ["a", "b"])),
    *(drop(name) for name in ("settings", "input_shape", "vocab", "decoding", "normalize")),
    drop("settings", "arch"),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_a_description_that_cannot_be_is_refused_before_anything_is_allocated(folder, change):
    run = copy.deepcopy(RUN)
    change(run)
    (folder / "run.json").write_text(json.dumps(run))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match=r"run\.json|model\.safetensors|resnet9000|architecture|simple_cnn"):
        load_run(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize("bias", [1.0, 200.0])
def test_an_activation_that_makes_no_probabilities_is_named(folder, bias):
    """'exp' fits a model that ends in log_softmax, and this one does not; at 200 its values are infinite."""
    weights = load_file(folder / "model.safetensors")
    last = [name for name in weights if name.endswith("bias")][-1]
    save_file({**weights, last: weights[last] + bias}, folder / "model.safetensors")
    (folder / "run.json").write_text(json.dumps(RUN | {"activation": "exp"}))
    with pytest.raises(UsageError, match=r"no probability: 'activation' in run\.json, 'exp'"):
        load_run(folder).predict([np.zeros((28, 28), np.uint8)])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"5", b'"run"', b"\xff\xfe", b"[" * 100_000, b"\x00" * 10, b'{"version": 1', b"NaN"],
    ids=range(11),
)
def test_what_is_no_json_object_is_refused(folder, content):
    (folder / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"run\.json: damaged"):
        load_run(folder)


@pytest.mark.parametrize("name", ["run.json", "model.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "missing", "loop"])
def test_what_is_no_file_is_refused(folder, name, kind):
    file = folder / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(file)
    with pytest.raises(UsageError, match=name):
        load_run(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


def with_nan(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state["0.0.weight"].view(-1)[3] = torch.nan
    return state


def with_nan_statistics(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    next(value for name, value in state.items() if "running_mean" in name)[0] = torch.nan
    return state


def with_infinity(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state["0.0.weight"].view(-1)[0] = torch.inf
    return state


WEIGHTS = {
    "of type int8": lambda state: {name: value.to(torch.int8) for name, value in state.items()},
    "of type float64": lambda state: {name: value.double() for name, value in state.items()},
    "complex": lambda state: {name: value.to(torch.complex64) for name, value in state.items()},
    "renamed": renamed,
    "missing one": lambda state: dict(list(state.items())[1:]),
    "with one more": lambda state: state | {"extra": torch.zeros(3)},
    "transposed": lambda state: {n: v.transpose(0, 1).contiguous() if v.ndim == 4 else v for n, v in state.items()},
    "flattened": lambda state: {name: value.reshape(-1) for name, value in state.items()},
    "of a wider model": lambda state: dict(create_model("simple_cnn", 1, 3, 28).state_dict()),
    "nan": with_nan,
    "nan in statistics": with_nan_statistics,
    "infinite": with_infinity,
    "none": lambda state: {},
}


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_that_are_not_the_models_are_refused(folder, change):
    save_file(change(weights(folder)), folder / "model.safetensors")
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        load_run(folder)


@pytest.mark.parametrize("length", [0, 1, 8, 100, 5_000])
def test_truncated_weights_are_refused(folder, length):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(UsageError, match="truncated or damaged"):
        load_run(folder)


def test_a_header_that_claims_more_than_there_is_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes((2**62).to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(UsageError, match="truncated or damaged"):
        load_run(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_taken_as_they_are(folder, dtype):
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights(folder).items()}
    save_file(state, folder / "model.safetensors")
    loaded = load_run(folder).model.state_dict()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in state.items())


def test_opening_a_run_draws_no_random_number(folder):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_run(folder)
    assert torch.equal(torch.rand(4), expected)


def test_a_name_that_moves_the_cursor_is_escaped(folder):
    hostile = folder.with_name("run\x1b[2J")
    shutil.copytree(folder, hostile)
    (hostile / "run.json").write_text(json.dumps(RUN | {"version": 9}))
    with pytest.raises(UsageError) as error:
        load_run(hostile)
    assert "\x1b" not in str(error.value) and "update pellucid" in str(error.value)


RECORD = {
    "loss": np.ones(4, np.float32),
    "smooth_loss": np.ones(4, np.float32),
    "epoch_values": np.ones((1, 3), np.float32),
    "epoch_end": np.array([4]),
}


@pytest.mark.parametrize(
    "change",
    [
        {"loss": np.ones((4, 2), np.float32)},
        {"loss": np.ones(3, np.float32)},
        {"epoch_values": np.ones(3, np.float32)},
        {"epoch_end": np.array([4, 8])},
        {"step": np.arange(9)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_that_cannot_be_is_refused(folder, change):
    from safetensors.numpy import save_file as save_arrays

    save_arrays(RECORD | change, folder / "history.safetensors")
    with pytest.raises(UsageError, match=r"history\.safetensors: damaged"):
        load_record(folder)


@pytest.mark.parametrize("name", list(RECORD))
def test_a_record_without_a_part_is_refused(folder, name):
    from safetensors.numpy import save_file as save_arrays

    save_arrays({n: value for n, value in RECORD.items() if n != name}, folder / "history.safetensors")
    with pytest.raises(UsageError, match=name):
        load_record(folder)


def test_a_record_that_is_a_pipe_is_refused(folder):
    os.mkfifo(folder / "history.safetensors")
    with pytest.raises(UsageError, match=r"history\.safetensors"):
        load_record(folder)
    with pytest.raises(UsageError, match=r"history\.safetensors"):
        load_history(folder)
