"""`timm:NAME` and `torchvision:NAME`, with libraries that stand in for them (the real ones are in tests/interop)."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.models import create_model
from pellucid.runs import Settings, load_run
from pellucid.vision.all import ImageDataLoaders, Learner, Normalize, Resize, vision_learner

TIMM = """
import torch
from torch import nn

class Net(nn.Module):
    pretrained_cfg = {"input_size": (3, 64, 64), "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3), "crop_pct": 0.9,
                      "interpolation": "bicubic", "architecture": "tiny"}

    def __init__(self, n_in, n_out, width, global_pool):
        super().__init__()
        self.num_features = width
        self.stem = nn.Conv2d(n_in, width, 8, 8)
        self.reset_classifier(n_out, global_pool)

    def reset_classifier(self, n_out, global_pool=None):
        self.pool = self.pool if global_pool is None else global_pool
        self.fc = nn.Linear(self.num_features, n_out) if n_out else nn.Identity()

    def forward_features(self, x):
        return self.stem(x).relu()

    def forward(self, x):
        x = self.forward_features(x)
        return self.fc(x if self.pool == "" else x.mean((2, 3)))

class Tokens(Net):
    def forward_features(self, x):
        return self.stem(x).relu().flatten(2).transpose(1, 2)

    def forward(self, x):
        return self.fc(self.forward_features(x).mean(1))

def create_model(name, pretrained=False, in_chans=3, num_classes=1000, width=6, global_pool="avg"):
    model = (Tokens if name.startswith("tokens") else Net)(in_chans, num_classes, width, global_pool)
    if pretrained:
        downloads.append(name)
        nn.init.constant_(model.stem.bias, 0.125)
    return model

downloads = []
"""


@pytest.fixture
def timm(tmp_path, monkeypatch):
    """A library of that name with two architectures and a count of its downloads."""
    package = tmp_path / "library" / "timm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TIMM)
    (package / "models.py").write_text("def list_models():\n    return ['tiny_net', 'tokens_net']\n")
    info = tmp_path / "library" / "timm-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: timm\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path / "library")
    for name in ("timm", "timm.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import timm as library  # pyright: ignore[reportMissingImports]

    yield library
    for name in ("timm", "timm.models"):
        sys.modules.pop(name, None)


def loaders(photos, size: int = 64):
    return ImageDataLoaders.from_folder(photos, valid_pct=0.3, seed=0, bs=8, item_tfms=Resize(size))


def fitted(learn: Learner) -> Learner:
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
    return learn


def assert_opens_again(learn: Learner, folder) -> None:
    run = load_run(learn.save_run(folder))
    expected = learn.get_preds()[0]
    found = [[answer.probabilities[str(name)] for name in run.vocab] for answer in run.predict(learn.dls.valid.items)]
    torch.testing.assert_close(torch.tensor(found), expected)


@pytest.mark.parametrize("arch", ["timm:tiny_net", "timm:tiny_net.tag_in1k", "timm:tokens_net"])
def test_a_run_opens_without_downloading(timm, photos, tmp_path, arch):
    learn = vision_learner(loaders(photos), arch, arguments={"width": 5}, lin_ftrs=(4,), ps=0.1)
    assert bool((learn.model[0].stem.bias == 0.125).all()) and not learn.model[0].stem.weight.requires_grad
    assert len(timm.downloads) == 1
    assert_opens_again(fitted(learn), tmp_path / "run")
    assert len(timm.downloads) == 1
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    pool = {"global_pool": ""} if "tiny" in arch else {}
    head = {"nf": 5, "pool": "tiny" in arch, "lin_ftrs": [4], "ps": 0.1}
    assert settings["arch"] == arch and settings["arguments"] == {"width": 5, **pool, "head": head}
    assert settings["weights"]["crop"] == 0.9 and settings["weights"]["interpolation"] == "bicubic"
    normalised = next(t for t in learn.dls.valid.batch_tfms if isinstance(t, Normalize))
    assert normalised.mean == pytest.approx([0.5, 0.4, 0.3]) and normalised.std == pytest.approx([0.1, 0.2, 0.3])


def test_pellucids_own_are_known_too(photos, tmp_path):
    assert_opens_again(fitted(vision_learner(loaders(photos))), tmp_path / "lite0")
    small = vision_learner(loaders(photos), "small_resnet", pretrained=False, cut=-4, arguments={"width": 4})
    assert_opens_again(fitted(small), tmp_path / "small")
    loaded = load_run(tmp_path / "small").model
    assert_opens_again(fitted(Learner(small.dls, loaded)), tmp_path / "loaded")
    without = vision_learner(loaders(photos), custom_head=nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), init=None)
    with pytest.raises(
        UsageError, match=r"head or the cut of this model is your own.*learn.save_run\(folder, nets.make\)"
    ):
        without.save_run(tmp_path / "custom")


def test_networks_without_a_body_of_ones_own(timm):
    model = create_model("timm:tiny_net", 1, 7, 32, width=3)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7) and not timm.downloads
    assert Settings("mnist", arch="timm:tiny_net").arch == "timm:tiny_net"


REFUSED = {
    "checkpoint_path": "/etc/passwd",
    "pretrained": True,
    "pretrained_cfg": {"url": "https://example.org"},
    "num_classes": 4,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_stranger_may_not_say_where_weights_come_from(timm, photos, tmp_path, name):
    folder = fitted(vision_learner(loaders(photos), "timm:tiny_net")).save_run(tmp_path / "run")
    file, n_downloads = folder / "run.json", len(timm.downloads)
    run = json.loads(file.read_text())
    run["settings"]["arguments"][name] = REFUSED[name]
    file.write_text(json.dumps(run))
    with pytest.raises(UsageError, match=f"timm:tiny_net takes no argument '{name}' here"):
        load_run(folder)
    del run["settings"]["arguments"][name]
    run["settings"]["arch"] = "timm:hf-hub:somebody/something"
    file.write_text(json.dumps(run))
    with pytest.raises(UsageError, match="does not exist"):
        load_run(folder)
    assert len(timm.downloads) == n_downloads


def test_code_in_the_run_folder_is_not_taken_for_the_library(timm, photos, tmp_path, monkeypatch):
    folder = fitted(vision_learner(loaders(photos), "timm:tiny_net")).save_run(tmp_path / "run")
    (folder / "timm.py").write_text("raise SystemExit('code of the folder was run')")
    for name in ("timm", "timm.models"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(UsageError, match="out of the run folder itself"):
        load_run(folder)


def test_wrong_names(timm, photos, monkeypatch):
    with pytest.raises(UsageError, match="'timm:tinynet' does not exist: the nearest are timm:tiny_net"):
        vision_learner(loaders(photos), "timm:tinynet")
    with pytest.raises(UsageError, match=r"'tiny_nets' does not exist: the nearest are timm:tiny_net"):
        create_model("tiny_nets", 3, 2, 64)
    with pytest.raises(UsageError, match="'simple_cn' does not exist: the nearest are simple_cnn"):
        Settings("mnist", arch="simple_cn")
    with pytest.raises(UsageError, match=r"timm:tiny_net\(depth=3\) cannot be made: .*depth.*weights='…'"):
        vision_learner(loaders(photos), "timm:tiny_net", arguments={"depth": 3})
    with pytest.raises(UsageError, match="fit no other arguments: width"):
        vision_learner(loaders(photos), arguments={"width": 3})
    with pytest.raises(UsageError, match=r"6×6 pixels are smaller than one step of the maps of .*lite0, 32 pixels"):
        vision_learner(loaders(photos, 6))
    with pytest.raises(UsageError, match=r"body of timm:tiny_net cannot take images \(3, 6, 6\)"):
        vision_learner(loaders(photos, 6), "timm:tiny_net")


def test_a_missing_library(timm, photos, tmp_path, monkeypatch):
    import pellucid.nn.libraries as libraries

    run = fitted(vision_learner(loaders(photos), "timm:tiny_net")).save_run(tmp_path / "run")
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"timm is not installed: pip install 'pellucid\[timm\]'"):
        vision_learner(loaders(photos), "timm:resnet50")
    with pytest.raises(UsageError, match=r"timm is not installed: pip install 'pellucid\[timm\]'"):
        load_run(run)
    with pytest.raises(UsageError, match=r"torchvision is not installed: pip install 'pellucid\[torchvision\]'"):
        create_model("torchvision:resnet18", 3, 2, 64)
