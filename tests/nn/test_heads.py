from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.heads import create_body, create_head
from pellucid.nn.layers import AdaptiveConcatPool2d
from pellucid.nn.models import small_resnet


def names(head: nn.Module) -> list[str]:
    return [type(module).__name__ for module in head]  # type: ignore[attr-defined]


def test_the_usual_head():
    head = create_head(16, 5).eval()
    assert names(head) == [
        "AdaptiveConcatPool2d", "Flatten", "BatchNorm1d", "Dropout", "Linear", "ReLU",
        "BatchNorm1d", "Dropout", "Linear",
    ]  # fmt: skip
    assert [m.p for m in head if isinstance(m, nn.Dropout)] == [0.25, 0.5]
    assert [m.weight.shape for m in head if isinstance(m, nn.Linear)] == [(512, 32), (5, 512)]
    assert all(m.bias is None for m in head if isinstance(m, nn.Linear))
    x = torch.rand(3, 16, 4, 6)
    pooled = torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)
    torch.testing.assert_close(head[:2](x), pooled)
    assert head(x).shape == (3, 5)


def test_other_heads():
    assert names(create_head(8, 2, [], concat_pool=False)) == [
        "AdaptiveAvgPool2d",
        "Flatten",
        "BatchNorm1d",
        "Dropout",
        "Linear",
    ]
    first = create_head(8, 2, [6], pool=False, lin_first=True, ps=0.4)
    assert names(first) == ["Dropout", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    assert [m.p for m in first if isinstance(m, nn.Dropout)] == [0.2, 0.4]
    plain = create_head(8, 2, [], ps=0, first_bn=False, bn_final=True)
    assert names(plain) == ["AdaptiveConcatPool2d", "Flatten", "Linear", "BatchNorm1d"] and plain[2].bias is not None
    assert first(torch.rand(4, 8)).shape == (4, 2)
    with pytest.raises(UsageError, match="2 linear layers has 2 dropouts, ps has 3"):
        create_head(8, 2, ps=[0.1, 0.2, 0.3])


def test_bodies():
    model = small_resnet(3, 5, width=8)
    body = create_body(model)
    assert list(body) == list(model)[:-3]
    assert body(torch.rand(1, 3, 64, 64)).shape[:2] == (1, 64)
    assert list(create_body(model, 2)) == list(model)[:2] and list(create_body(model, -1)) == list(model)[:-1]
    assert create_body(model, lambda m: m[0]) is model[0]
    nested = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), AdaptiveConcatPool2d()), nn.Flatten())
    assert list(create_body(nested)) == [nested[0]]
    with pytest.raises(UsageError, match=r"no child of this Sequential is a pooling layer.*cut="):
        create_body(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()))
