"""A file of weights to begin with: safetensors or a state dict, of the whole network, checked before it is used."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.models import create_model
from pellucid.vision.all import ImageDataLoaders, Resize, vision_learner


@pytest.fixture
def dls(photos):
    return ImageDataLoaders.from_folder(photos, valid_pct=0.3, seed=0, bs=8, item_tfms=Resize(64))


def small(n_out: int = 17) -> nn.Module:
    """Of other classes than the photos have."""
    torch.manual_seed(3)
    return create_model("small_resnet", 3, n_out, 64, width=4)


def learner(dls, file, **options):
    return vision_learner(dls, "small_resnet", weights=file, arguments={"width": 4}, **options)


@pytest.mark.parametrize("kind", ["safetensors", "state dict", "checkpoint"])
def test_the_body_has_the_weights_of_the_file(dls, tmp_path, kind):
    state = small().state_dict()
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save(state if kind == "state dict" else {"epoch": 3, "state_dict": state}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    learn = learner(dls, file, sha256=digest.upper())
    body = learn.model[0].state_dict()
    assert body and all(torch.equal(value, state[name]) for name, value in body.items())
    assert not learn.model[0][0][0].weight.requires_grad and learn.model[1][-1].weight.shape[0] == 3
    assert learn.model.architecture.weights["sha256"] == digest.upper()


def test_normalisation_is_of_the_published_weights(dls, tmp_path):
    torch.save(create_model("efficientnet_lite0", 3, 5, 64).state_dict(), tmp_path / "w.pth")
    vision_learner(dls, weights=tmp_path / "w.pth")
    assert dls.valid.batch_tfms[0].mean == pytest.approx([127 / 255] * 3)


def spoiled(state: dict, how: str) -> dict:
    first = next(iter(state))
    if how == "missing":
        del state[first]
    elif how == "besides":
        state["something.else"] = torch.zeros(3)
    else:
        state[first] = torch.zeros(4, 3, 5, 5)
    return state


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "not those of this network: has no 0.0.weight"),
        ("besides", "not those of this network: has something.else besides"),
        ("shape", r"not those of this network: 0.0.weight is \(4, 3, 5, 5\) instead of \(4, 3, 3, 3\)"),
    ],
)
def test_weights_of_another_network(dls, tmp_path, how, message):
    torch.save(spoiled(small().state_dict(), how), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=message):
        learner(dls, tmp_path / "w.pth")


class Ran:
    """Unpickled by anyone who trusts the file."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_what_is_no_file_of_weights(dls, tmp_path):
    torch.save(small().state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"w.pth: its sha256 is \w{12}…, not 000000000000…: it is damaged or another"):
        learner(dls, tmp_path / "w.pth", sha256="0" * 64)
    with pytest.raises(UsageError, match=r"none.pth: cannot be read \(No such file"):
        learner(dls, tmp_path / "none.pth")
    torch.save({"model": Ran()}, tmp_path / "code.pth")
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("weights?")
    for name in ("code.pth", "text.pth", "text.safetensors"):
        with pytest.raises(UsageError, match=f"{name}: is no file of weights alone"):
            learner(dls, tmp_path / name)
    with pytest.raises(UsageError, match=r"list\.pth: holds no state dict"):
        learner(dls, tmp_path / "list.pth")
