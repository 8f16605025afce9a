"""Frameworks that are not installed are skipped; `make interop` installs all of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from pellucid.activations import global_hooks

if importlib.util.find_spec("torchvision"):  # fastai imports it, and Lightning through its metrics
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "peers"))
    import torchvision_import  # noqa: F401


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Frameworks write logs and checkpoints where they stand; afterwards no hook of ours may be left."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (global_hooks._calls or global_hooks._losses)
    assert not torch.nn.modules.module._global_forward_hooks
    assert torch.autograd.backward.__module__ == "torch.autograd"
