"""The probe: logistic regression against scipy, its strength, and the head that it fills."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import nn
from torch.nn import functional as F

from bodies import body, learner, write_photos
from pellucid.errors import UsageError
from pellucid.training.features import body_features, features_in_place_of_images
from pellucid.training.logistic import STRENGTHS, choose_strength, fit_logistic
from pellucid.training.probe import linear_probe
from pellucid.vision.all import (
    ImageDataLoaders,
    Learner,
    MultiCategoryBlock,
    Normalize,
    Resize,
    accuracy_multi,
    create_head,
    default_split,
)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_HOME", str(tmp_path / "home"))
    return write_photos(tmp_path / "photos")


def classes(n: int, d: int, k: int, seed: int, noise: float = 1.5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    x = rng.normal(size=(k, d))[y] + noise * rng.normal(size=(n, d))
    return torch.from_numpy((x - x.mean(0)) / x.std(0)), torch.from_numpy(y)


@settings(max_examples=15, deadline=None)
@given(st.integers(5, 40), st.integers(1, 8), st.integers(2, 4), st.sampled_from([1e-3, 0.1, 3.0]), st.integers(0, 99))
def test_it_is_the_minimum_that_scipy_finds(n, d, k, strength, seed):
    x, y = classes(n, d, k, seed)
    assume(len(y.unique()) == k)  # of a class without items the bias has no best value: the lower, the better
    X, Y = x.numpy(), y.numpy()

    def loss(flat):
        weight, bias = flat[: k * d].reshape(k, d), flat[k * d :]
        z = X @ weight.T + bias
        return np.mean(logsumexp(z, 1) - z[np.arange(n), Y]) + strength / 2 * np.sum(weight**2)

    weight, bias = fit_logistic(x, y, k, strength)
    ours = loss(np.concatenate([weight.numpy().ravel(), bias.numpy()]))
    theirs = minimize(loss, np.zeros(k * d + k), method="BFGS", options={"gtol": 1e-7})
    assert ours <= theirs.fun + 1e-6
    np.testing.assert_allclose(weight.numpy().ravel(), theirs.x[: k * d], atol=5e-3)


def test_it_needs_no_gradients_switched_on():
    x, y = classes(30, 3, 2, 0)
    with torch.no_grad():
        assert torch.equal(fit_logistic(x, y, 2, 0.1)[0], fit_logistic(x, y, 2, 0.1)[0])


def test_where_features_are_noise_the_penalty_is_strong_and_where_they_tell_all_it_is_weak():
    noise = torch.randn(60, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 2
    assert choose_strength([noise], y, 2).strength == STRENGTHS[0]
    x, y = classes(200, 3, 2, 1, noise=0.1)
    assert choose_strength([x], y, 2).strength < 0.01


def test_the_strength_is_judged_on_images_none_of_whose_views_was_learnt_from():
    """Mirror images that tell the class by heart would make any penalty look useless if they leaked."""
    generator = torch.Generator().manual_seed(0)
    secret = torch.randn(50, 100, generator=generator)
    y = torch.randint(0, 2, (50,), generator=generator)
    choice = choose_strength([secret, secret.clone()], y, 2)
    weakest = list(choice.losses)[-1]
    assert choice.losses[weakest] > 0.69  # of guesses


def test_the_search_ends_where_weaker_penalties_only_overfit():
    x, y = classes(60, 200, 2, 1, noise=6.0)
    choice = choose_strength([x], y, 2)
    tried, losses = list(choice.losses), list(choice.losses.values())
    assert tried == list(STRENGTHS[: len(tried)]) and len(tried) < len(STRENGTHS)
    assert min(losses) < min(losses[-2:])
    weaker = [fit_logistic(x[12:], y[12:], 2, strength) for strength in (tried[-1], STRENGTHS[-1])]
    scores = [float(F.cross_entropy(F.linear(x[:12], *each), y[:12])) for each in weaker]
    assert scores[1] > scores[0]


def accuracy_of(learn) -> float:
    return learn.validate()[1]


@pytest.mark.parametrize("first_bn", [True, False])
@pytest.mark.parametrize("uneven", [True, False])
def test_the_head_predicts_what_the_regression_does(photos, first_bn, uneven):
    for file in sorted((photos / "b").iterdir())[: 14 * uneven]:  # biases matter then
        file.unlink()
    learn = learner(photos, head=create_head(12, 2, [], ps=0.3, concat_pool=False, first_bn=first_bn))
    found = linear_probe(learn)
    assert found.n_views == 2 and found.n_features == 12 and found.strength in found.losses
    both = torch.cat([body_features(learn, 0), body_features(learn, 0, flipped=True)]).double()
    mean, std = both.mean(0), (both.var(0, correction=0) + 1e-5).sqrt()
    weight, bias = fit_logistic((both - mean) / std, learn.dls.train.labels.repeat(2), 2, found.strength)
    expected = F.softmax(F.linear((body_features(learn).double() - mean) / std, weight, bias), 1)
    torch.testing.assert_close(learn.get_preds()[0].double(), expected, rtol=1e-3, atol=1e-4)
    with features_in_place_of_images(learn):
        on_features = accuracy_of(learn)
    assert on_features == accuracy_of(learn)


def test_it_learns_and_leaves_the_body_alone(photos):
    learn = learner(photos)
    before = {name: t.clone() for name, t in learn.model[0].state_dict().items()}
    linear_probe(learn, flipped=False)
    assert accuracy_of(learn) == 1
    assert all(torch.equal(t, before[name]) for name, t in learn.model[0].state_dict().items())


@settings(max_examples=10, deadline=None)
@given(st.integers(5, 40), st.integers(1, 6), st.integers(1, 3), st.sampled_from([0.01, 0.3]), st.integers(0, 99))
def test_each_label_has_a_regression_of_its_own(n, d, k, strength, seed):
    x, _ = classes(n, d, 2, seed)
    y = torch.from_numpy(np.random.default_rng(seed).random((n, k)) < 0.4).double()
    y[:2] = torch.tensor([[0.0], [1.0]])  # both occur, so that there is a minimum
    weight, bias = fit_logistic(x, y, k, strength)
    for label in range(k):
        signs = 2 * y[:, label].numpy() - 1

        def loss(flat, signs=signs):
            return (
                np.logaddexp(0, -signs * (x.numpy() @ flat[:d] + flat[d])).mean() + strength / 2 * (flat[:d] ** 2).sum()
            )

        theirs = minimize(loss, np.zeros(d + 1), method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose([*weight[label].tolist(), float(bias[label])], theirs.x, atol=5e-3)


def test_the_strength_of_labels_is_judged_by_their_summed_losses():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    y = (x[:, :2] + 0.5 * torch.randn(60, 2, generator=generator) > 0).double()
    choice = choose_strength([x], y, 2)
    alone = [choose_strength([x], y[:, i].long(), 2) for i in range(2)]
    assert choice.losses[0.1] == pytest.approx(sum(each.losses[0.1] for each in alone), rel=0.2)  # of other folds
    assert STRENGTHS[-1] < choice.strength < STRENGTHS[0]


def test_photos_of_several_labels(photos):
    named = lambda name: ["bright"] * (int(name[:-4]) % 2) + ["low"] * (int(name[:-4]) < 12)
    dls = ImageDataLoaders.from_name_func(
        photos, sorted(photos.glob("*/*.png")), named, y_block=MultiCategoryBlock, seed=0, item_tfms=Resize(16),
        batch_tfms=Normalize(), bs=8, device="cpu", workers=1,
    )  # fmt: skip
    model = nn.Sequential(body(), create_head(12, 2, [], ps=0.1, concat_pool=False))
    learn = Learner(dls, model, metrics=accuracy_multi, splitter=default_split, train_bn=False)
    learn.freeze()
    found = linear_probe(learn)
    both = torch.cat([body_features(learn, 0), body_features(learn, 0, flipped=True)]).double()
    mean, std = both.mean(0), (both.var(0, correction=0) + 1e-5).sqrt()
    weight, bias = fit_logistic((both - mean) / std, dls.train.labels.repeat(2, 1), 2, found.strength)
    expected = F.linear((body_features(learn).double() - mean) / std, weight, bias).sigmoid()
    preds, targs = learn.get_preds()
    torch.testing.assert_close(preds.double(), expected, rtol=1e-3, atol=1e-4)
    assert ((preds[:, 0] > 0.5) == targs[:, 0].bool()).all()  # bright or not
    with pytest.raises(UsageError, match="balanced weighs classes"):
        linear_probe(learn, balanced=True)


def test_other_heads_are_refused(photos):
    learn = learner(photos, head=create_head(12, 2))
    with pytest.raises(UsageError, match=r"single linear layer.*lin_ftrs=\[\]"):
        linear_probe(learn)
    learn.model = nn.Flatten()
    with pytest.raises(UsageError, match="a body and a head"):
        linear_probe(learn)
