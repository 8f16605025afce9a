"""Features of a frozen body: the body's own answers to the bit, kept until something that they depend on changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bodies import learner, write_photos
from pellucid.data.store import stores_folder
from pellucid.errors import UsageError
from pellucid.training.features import FeatureLoader, body_features, divided, needs_images
from pellucid.vision.all import Callback, Learner, Normalize, SaveModelCallback, set_seed


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    return write_photos(tmp_path / "photos")


@pytest.fixture
def computed(monkeypatch):
    """How many batches a body was asked for."""
    asked = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: (asked.append(len(x)), forward(self, x))[1])
    return asked


def live(learn: Learner, ds_idx: int, flipped: bool = False) -> torch.Tensor:
    """By hand: the plain images in their order, through the transforms of validation and the layers in turn."""
    loader = learn.dls[ds_idx]
    found = []
    for rows in loader.rows.split(32):
        xb = learn.dls.valid.batch_tfms[0](loader.source.pixels[rows].float() / 255)
        xb = (xb.flip(3) if flipped else xb).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            found.append(learn.model[0].eval()(xb).mean((2, 3)))
    return torch.cat(found)


@pytest.mark.parametrize("ds_idx", [0, 1])
@pytest.mark.parametrize("flipped", [False, True])
def test_they_are_the_bodys_own_answers(photos, ds_idx, flipped):
    learn = learner(photos)
    first, again = (body_features(learn, ds_idx, flipped=flipped) for _ in range(2))
    pooled = live(learn, ds_idx, flipped)
    assert torch.equal(first, again)
    torch.testing.assert_close(first, pooled, rtol=1e-6, atol=1e-7)  # the mean is torch's pooling, summed otherwise
    layers = nn.Sequential(*divided(learn.model)[0]).eval()
    loader = learn.dls[ds_idx].new(32, shuffle=False, drop_last=False)
    with torch.no_grad():
        batches = [x.flip(-1) if flipped else x for x, _ in loader]
        assert torch.equal(first, torch.cat([layers(x.contiguous(memory_format=torch.channels_last)) for x in batches]))


def test_they_are_computed_once(photos, computed):
    first = body_features(learner(photos))
    computed.clear()
    assert torch.equal(body_features(learner(photos)), first)
    assert sum(computed) == 2  # the made-up image alone, through two convolutions


def changed_weight(learn, path):
    with torch.no_grad():
        learn.model[0][3].weight[0, 0, 0, 0] += 1e-3


def changed_statistics(learn, path):
    learn.model[0][1].running_mean[0] += 1e-3


def changed_code(learn, path):
    learn.model[0][2].forward = torch.abs


def changed_transform(learn, path):
    for loader in learn.dls.loaders:
        loader.batch_tfms = [Normalize(0.4, 0.2)]


def damaged_file(learn, path):
    file = next(stores_folder().glob("*.*/array.npy"))
    content = bytearray(file.read_bytes())
    content[-300] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [changed_weight, changed_statistics, changed_code, changed_transform, damaged_file],
    ids=lambda f: f.__name__,
)
def test_whatever_changes_them_has_them_computed_anew(photos, computed, change):
    before = body_features(learner(photos))
    learn = learner(photos)
    change(learn, photos)
    computed.clear()
    after = body_features(learn)
    assert sum(computed) > 2 * len(after)
    assert torch.equal(after, before) == (change is damaged_file)
    layers = nn.Sequential(*divided(learn.model)[0]).eval()
    with torch.no_grad():
        torch.testing.assert_close(after, layers(learn.dls.valid.new(32).one_batch()[0]), rtol=1e-5, atol=1e-6)


def test_other_images_other_sizes_and_other_splits_have_their_own(photos):
    seen = [
        body_features(learner(photos)),
        body_features(learner(photos, size=20)),
        body_features(learner(photos, seed=1)),
    ]
    pixels = np.asarray(Image.open(photos / "a" / "0.png"))
    Image.fromarray(255 - pixels).save(photos / "a" / "0.png")
    changed = body_features(learner(photos), 0), body_features(learner(photos), 1)
    assert not any(torch.equal(seen[0], other) for other in seen[1:])
    for ds_idx in (0, 1):
        torch.testing.assert_close(changed[ds_idx], live(learner(photos), ds_idx), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_seed_gives_the_same_bits_with_and_without_the_cache(photos, workers, monkeypatch):
    monkeypatch.setattr("pellucid.data.store.FILES_PER_PROCESS", 10)
    weights = []
    for _ in range(2):  # the second finds the features on disk
        set_seed(3)
        learn = learner(photos, workers=workers)
        learn.fine_tune(1, 0.01, freeze_epochs=2, flipped=True)
        weights.append(learn.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_frozen_epochs_look_at_every_image_once(photos, computed):
    learn = learner(photos)
    before = [p.clone() for p in learn.model[0].state_dict().values()]
    learn.freeze()
    learn.fine_tune(1, 0.01, freeze_epochs=5)
    n_train, n_valid = learn.dls.train.n, learn.dls.valid.n
    # All images once, a made-up one and the unfrozen epoch with its rehearsal, each through two convolutions.
    assert sum(computed) <= 2 * (n_train + n_valid + 2 + 2 * n_train + 2 * n_valid + 8)
    assert learn.dls.train.source.shape == (3, 16, 16) and "forward" not in vars(learn.model[0])
    assert not all(torch.equal(a, b) for a, b in zip(before, learn.model[0].state_dict().values(), strict=True))


def test_frozen_epochs_train_the_head_as_live_ones_would(photos):
    """With a head that has neither chance nor batch statistics, the same order gives the same steps."""
    heads = []
    for cbs in (None, Callback(after_batch=lambda self: None)):  # a callback of the user may need images
        learn = learner(photos, head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 2)), cbs=cbs)
        assert needs_images(learn, []) == (cbs is not None)
        torch.nn.init.zeros_(learn.model[1][2].weight), torch.nn.init.zeros_(learn.model[1][2].bias)
        set_seed(5)
        learn.freeze()
        captured = []
        full = learn.fit_one_cycle
        learn.fit_one_cycle = lambda *a, f=full, c=captured, m=learn.model, **k: (  # type: ignore[method-assign]
            f(*a, **k),
            c.append(m[1][2].weight.detach().clone()),
        )
        learn.fine_tune(1, 0.01, freeze_epochs=2)
        heads.append(captured[0])
    torch.testing.assert_close(heads[0], heads[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("train_bn", [False, True])
def test_after_unfreezing_the_body_has_the_statistics_that_the_head_was_trained_on(photos, train_bn):
    learn = learner(photos)
    learn.train_bn = train_bn
    norm, before = learn.model[0][1], learn.model[0][1].running_mean.clone()
    modes, weight = [], norm.weight.detach().clone()
    norm.register_forward_hook(lambda module, args, output: modes.append(module.training))
    learn.fine_tune(2, 0.01, freeze_epochs=0)
    assert any(modes) == train_bn
    assert torch.equal(norm.running_mean, before) != train_bn
    assert not torch.equal(norm.weight, weight)  # it is trained all the same


def test_saved_in_a_frozen_epoch_a_file_holds_the_whole_model(photos, tmp_path):
    learn = learner(photos)
    learn.path = tmp_path
    learn.fine_tune(1, 0.01, freeze_epochs=1, cbs=SaveModelCallback())
    other = learner(photos)
    other.path = tmp_path
    other.load("model", with_opt=False)
    assert {name: t.shape for name, t in other.model.state_dict().items()}


@pytest.mark.parametrize("why", ["train_bn", "unfrozen", "streamed", "callback", "one part"])
def test_images_are_needed(photos, why):
    learn = learner(photos, cache=why != "streamed")
    learn.train_bn = why == "train_bn"
    learn.freeze()
    if why == "unfrozen":
        learn.unfreeze()
    if why == "one part":
        learn.model = nn.Sequential(*learn.model[0])
    cbs = [Callback(before_batch=lambda self: None)] if why == "callback" else []
    assert needs_images(learn, cbs)


def test_models_and_loaders_that_have_no_features(photos):
    learn = learner(photos)
    learn.model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2))
    with pytest.raises(UsageError, match="a body and a head"):
        body_features(learn)
    learn = learner(photos)
    learn.dls.valid = [(torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long))]
    with pytest.raises(UsageError, match="made by a DataBlock"):
        body_features(learn)


def test_where_nothing_can_be_written_they_are_computed(photos, computed, monkeypatch):
    learn = learner(photos)
    monkeypatch.setenv("PELLUCID_HOME", "/proc/nowhere")
    assert torch.equal(body_features(learn), body_features(learn))
    assert sum(computed) > 4 * learn.dls.valid.n


def test_a_view_is_drawn_for_each_image():
    views = torch.stack([torch.zeros(400, 1), torch.ones(400, 1)])
    loader = FeatureLoader(views, torch.arange(400), 30, shuffle=True, drop_last=True)
    xs, ys = zip(*loader, strict=True)
    assert len(loader) == len(xs) == 13 and len(set(torch.cat(ys).tolist())) == 390
    assert 150 < float(torch.cat(xs).sum()) < 240
    (plain, labels), *_ = FeatureLoader(views[:1], torch.arange(400), 500)
    assert not plain.any() and torch.equal(labels, torch.arange(400))


def test_weighted_images_give_their_features_more_often():
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0])
    loader = FeatureLoader(torch.zeros(1, 4, 2), torch.arange(4), 2, shuffle=True, weights=weights)
    drawn = torch.cat([labels for _ in range(200) for _, labels in loader]).tolist()
    assert set(drawn) == {1, 3} and abs(drawn.count(3) - 600) < 5 * (800 * 3 / 16) ** 0.5
