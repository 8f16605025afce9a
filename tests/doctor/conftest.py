"""What watching may leave behind in torch: nothing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import overrides
from torch.optim import optimizer as optimizer_module
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data.dataloader import _BaseDataLoaderIter

from pellucid.doctor import listening


def places() -> list[object]:
    modules = torch.nn.modules.module
    hooks = [list(modules._global_forward_hooks), list(modules._global_forward_pre_hooks)]
    steps = [
        list(optimizer_module._global_optimizer_pre_hooks),
        list(optimizer_module._global_optimizer_post_hooks),
    ]
    functions = [getattr(F, name) for name in (*listening.LOSSES, *listening.DROPOUTS)]
    classes = [LRScheduler.step, OneCycleLR.step, torch.optim.lr_scheduler.ReduceLROnPlateau.step]
    return [
        *hooks,
        *steps,
        *functions,
        *classes,
        torch.autograd.backward,
        torch.Tensor.backward,
        torch.amp.GradScaler.scale,
        _BaseDataLoaderIter.__next__,
        overrides._len_torch_function_stack(),
    ]


@pytest.fixture
def all_is_gone():
    before = places()
    yield
    assert places() == before
    assert not listening._listeners and listening._installed is None
