from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.convolution.summary import summarize
from pellucid.nn.models import plain_cnn, simple_cnn, small_resnet


@pytest.mark.parametrize(("make", "n_params"), [(simple_cnn, 30_542), (plain_cnn, 30_282)])
def test_parameters_of_the_chapters_networks(make, n_params):
    table = summarize(make(), torch.zeros(2, 1, 28, 28))
    assert table.n_params == n_params == sum(row.n_params for row in table.rows)


@pytest.mark.parametrize("size", [17, 28, 32, 33, 64, 100])
def test_simple_cnn_ends_in_one_pixel_whatever_the_size(size):
    assert simple_cnn(3, 7, size)(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [(32, 32), (65, 90), (128, 128)])
def test_small_resnet_takes_any_size(size):
    assert small_resnet(3, 5)(torch.zeros(2, 3, *size)).shape == (2, 5)


def test_shared_layers_are_counted_once_and_shown_at_each_call():
    layer = nn.Linear(4, 4)
    table = summarize(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(2, 4))
    assert [row.n_params for row in table.rows] == [20, 0, 0]
    assert table.n_params == 20


def test_summary_leaves_the_model_as_it_was():
    model = simple_cnn().train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    summarize(model, torch.randn(4, 1, 28, 28))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and not model[1].training
    assert not any(m._forward_hooks for m in model.modules())
