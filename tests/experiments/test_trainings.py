from __future__ import annotations

import pytest
import torch

from pellucid.errors import UsageError
from pellucid.experiments import EXPERIMENTS
from pellucid.experiments.trainings import _colour_mnist, _mnist, train_colours, train_digits

TINY = {"epochs": 1, "images": 600}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_variant_trains_and_repeats(name):
    experiment = EXPERIMENTS[name]
    assert experiment.settings == {"epochs": 2, "images": 60_000}
    for options in experiment.variants.values():
        first, again = (experiment.function(0, **options, **TINY) for _ in range(2))
        assert first == again
        assert 0 <= first["accuracy"] <= 1 and first["valid_loss"] > 0 and not first["diverged"]


def test_every_seed_is_another_training():
    assert train_digits(0, bs=64, **TINY) != train_digits(1, bs=64, **TINY)


def test_the_chapters_network_counts_as_in_the_chapter():
    found = train_digits(0, norm="batch", **TINY)
    assert (found["parameters"], found["multiplications"]) == (30_542, 39_200 + 56_448 + 73_728 + 73_728 + 5_760)


def test_it_learns():
    assert train_digits(0, epochs=1, images=6_000, bs=64, lr=0.03)["accuracy"] > 0.93


def test_grey_guesses_the_ink():
    rgb, grey = (
        train_colours(0, epochs=2, images=6_000, bs=64, lr=0.03, encoding=encoding)["accuracy"]
        for encoding in ("RGB", "grey")
    )
    assert grey < 0.4 and rgb > grey + 0.3


def test_a_loss_that_explodes_is_a_result():
    found = train_digits(0, norm=None, lr=1e30, bs=64, **TINY)
    assert found["diverged"] == 1 and found["accuracy"] < 0.5


@pytest.mark.parametrize("images", [59, 60_001])
def test_too_few_or_too_many_images(images):
    with pytest.raises(UsageError, match="images must be between 60 and 60,000"):
        train_digits(0, epochs=1, images=images)


@pytest.mark.parametrize(("images_of", "n_classes"), [(_mnist, 10), (_colour_mnist, 30)])
def test_training_and_validation_images_are_apart(images_of, n_classes):
    found = images_of(3_000)
    train, valid = found.loaders([], 500)
    assert (train.n, valid.n, len(found.labels)) == (3_000, 500, 3_500)
    assert set(train.rows.tolist()).isdisjoint(valid.rows.tolist())
    assert sorted(set(found.labels)) == list(range(n_classes))
    torch.manual_seed(0)
    first = train.one_batch()[1]
    torch.manual_seed(0)
    assert torch.equal(first, next(iter(train))[1]) and not torch.equal(first, next(iter(train))[1])
