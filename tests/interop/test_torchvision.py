"""The layer table of published architectures, as torchvision builds them, against the model and PyTorch's counter."""

from __future__ import annotations

import pytest
import torch

import pellucid
from flops import torch_counts

models = pytest.importorskip("torchvision.models")

ARCHITECTURES = (
    *("alexnet", "resnet50", "googlenet", "inception_v3", "densenet121", "mobilenet_v2", "mobilenet_v3_small"),
    *("efficientnet_b0", "efficientnet_v2_s", "shufflenet_v2_x1_0", "squeezenet1_1", "mnasnet0_5", "regnet_y_400mf"),
    *("convnext_tiny", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"),
)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_add_up_to_the_model_and_to_torchs_counter(name):
    model = getattr(models, name)(weights=None).eval()
    x = torch.zeros(1, 3, *[299 if name == "inception_v3" else 224] * 2)
    table = pellucid.summarize(model, x)
    assert sum(row.n_params for row in table.rows) == sum(p.numel() for p in model.parameters()) == table.n_params
    assert sum(row.n_multiplications for row in table.rows) == torch_counts(model, x) > 0
    assert not any(row.uncounted for row in table.rows)
