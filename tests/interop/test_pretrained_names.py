"""`timm:NAME` and `torchvision:NAME` of the real libraries, from a learner to a run folder and back, offline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from pellucid import convolution as cv
from pellucid import watch
from pellucid.errors import UsageError
from pellucid.runs import load_run
from pellucid.vision.all import ImageDataLoaders, Resize, vision_learner

ARCHITECTURES = (
    *("timm:resnet18", "timm:mobilenetv3_small_050", "timm:densenet121", "timm:convnext_atto"),
    *("timm:vit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224"),
    *("torchvision:resnet18", "torchvision:densenet121", "torchvision:mobilenet_v2", "torchvision:mobilenet_v3_small"),
    *("torchvision:shufflenet_v2_x0_5", "torchvision:squeezenet1_1", "torchvision:efficientnet_b0"),
    *("torchvision:regnet_y_400mf", "torchvision:mnasnet0_5", "torchvision:swin_t"),
)


@pytest.fixture
def dls(tmp_path, request):
    generator = torch.Generator().manual_seed(0)
    for n in range(20):
        file = Path(tmp_path) / "data" / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8, generator=generator).numpy()).save(file)
    size = 224 if "224" in request.node.name else 64
    return ImageDataLoaders.from_folder(tmp_path / "data", valid_pct=0.3, seed=0, bs=4, item_tfms=Resize(size))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_run_is_rebuilt(dls, tmp_path, arch):
    pytest.importorskip(arch.partition(":")[0])
    learn = vision_learner(dls, arch, pretrained=False)
    run = load_run(learn.save_run(tmp_path / "run"))
    expected = learn.get_preds()[0]
    found = [[answer.probabilities[name] for name in run.vocab] for answer in run.predict(dls.valid.items)]
    torch.testing.assert_close(torch.tensor(found), expected)
    assert sum(row.n_params for row in run.summary().rows) == sum(p.numel() for p in learn.model.parameters())


@pytest.mark.parametrize("arch", ["timm:resnet18", "torchvision:resnet18"])
def test_they_can_be_seen_through(dls, arch):
    pytest.importorskip(arch.partition(":")[0])
    model = vision_learner(dls, arch, pretrained=False).model.eval()
    x = dls.one_batch()[0][:1]
    assert cv.receptive_field(model[0], (3, 64, 64))[0].size == (7, 7)
    assert cv.trace(model, x, 1, (3, 4), channel=1).immediate().products.size
    with watch(model) as watched:
        model(x)
    assert len(watched.history.layers) > 15


def test_what_has_no_body(dls):
    pytest.importorskip("torchvision")
    with pytest.raises(UsageError, match="torchvision:googlenet has outputs on its way"):
        vision_learner(dls, "torchvision:googlenet", pretrained=False)
    with pytest.raises(UsageError, match="does not exist: the nearest are torchvision:resnet5"):
        vision_learner(dls, "torchvision:resnet51")
