"""Keeping a history up to date never ends a training, and a watch closes whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import pellucid
from pellucid.activations import autosave, global_hooks
from pellucid.errors import UsageError
from pellucid.history.file import FILE

_armed: list[tuple[str, Path]] = []


def _interrupt(event: str, args: tuple) -> None:
    """Press Ctrl-C at the moment a file of an armed folder is opened, renamed and so on."""
    if _armed and event == _armed[0][0] and str(_armed[0][1]) in str(args[0]):
        _armed.clear()
        signal.raise_signal(signal.SIGINT)


sys.addaudithook(_interrupt)


@pytest.fixture(autouse=True)
def always_due(monkeypatch):
    monkeypatch.setattr(autosave, "SAVE_EVERY_S", 0.0)
    backward = torch.autograd.backward
    yield
    _armed.clear()
    assert not (global_hooks._calls or global_hooks._losses)
    assert not torch.nn.modules.module._global_forward_hooks
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert torch.autograd.backward is backward


@contextmanager
def damaged(folder: Path, how: str):
    """A folder whose history cannot be written."""
    if how == "gone":
        shutil.rmtree(folder)
        folder.write_text("a file of that name")
    elif how == "folder in its place":
        (folder / FILE).unlink(missing_ok=True)
        (folder / FILE).mkdir()
    else:  # the largest size a file may have: what a full disk is to the one who writes
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        return
    yield


def parts():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def train(model, opt, n: int) -> None:
    for _ in range(n):
        model(torch.ones(2, 3)).square().sum().backward()
        opt.step()
        opt.zero_grad()


@pytest.mark.parametrize("how", ["gone", "folder in its place", "full"])
def test_a_history_that_cannot_be_written_warns_once_and_training_goes_on(tmp_path, how):
    model, opt = parts()
    folder = tmp_path / "seen"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pellucid.watch(model, opt, folder=folder) as seen:
            with damaged(folder, how):
                for _ in range(3):
                    seen._autosave.at = 0.0
                    train(model, opt, 50)
            if how == "full":
                assert not (folder / FILE).exists()
    messages = [str(each.message) for each in caught]
    assert len(messages) == 1
    assert "the history cannot be written" in messages[0]
    assert "kept in memory" in messages[0]
    assert seen.history.train.steps[-1, 1] == 150
    seen.history.save(tmp_path / "elsewhere")
    assert (folder / FILE).is_file() == (how == "full")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("make", [lambda p: p.write_text("x"), lambda p: (p / FILE).mkdir(parents=True)])
def test_a_folder_that_cannot_be_used_is_reported_before_training(tmp_path, make):
    model, opt = parts()
    make(tmp_path / "seen")
    seen = pellucid.watch(model, opt, folder=tmp_path / "seen")
    with pytest.raises(UsageError, match="cannot be written"):
        seen.start()


@pytest.mark.parametrize("when", ["in a step", "at the end"])
@pytest.mark.parametrize("event", ["open", "os.chmod", "os.rename"])
def test_ctrl_c_while_a_history_is_written(tmp_path, event, when):
    model, opt = parts()
    outer = pellucid.watch(model, opt, loss=True)
    with pytest.raises(KeyboardInterrupt), outer, pellucid.watch(model, opt, loss=True, folder=tmp_path) as seen:
        train(model, opt, 60)
        earlier = (tmp_path / FILE).read_bytes()
        _armed.append((event, tmp_path))
        if when == "in a step":
            seen._autosave.at = 0.0
            train(model, opt, 60)
    assert not _armed
    assert not seen.is_open
    assert not outer.is_open
    assert not list(tmp_path.glob("*.tmp"))
    steps = pellucid.History.load(tmp_path).train.steps
    if when == "in a step":
        assert steps[-1, 1] == 100  # closing wrote what the interrupted save could not
    else:
        assert (tmp_path / FILE).read_bytes() == earlier


def test_an_error_in_the_block_stays_the_one_that_is_raised(tmp_path):
    model, opt = parts()
    with (
        pytest.warns(UserWarning, match="the history cannot be written"),
        pytest.raises(ZeroDivisionError),
        pellucid.watch(model, opt, folder=tmp_path / "seen") as seen,
    ):
        train(model, opt, 3)
        shutil.rmtree(tmp_path / "seen")
        (tmp_path / "seen").write_text("x")
        raise ZeroDivisionError
    assert seen.history.train.steps[-1, 1] == 3


def test_permissions_follow_the_umask_while_a_run_writes(tmp_path):
    model, opt = parts()
    before = os.umask(0o002)
    try:
        with pellucid.watch(model, opt, folder=tmp_path):
            train(model, opt, 50)
            assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)
