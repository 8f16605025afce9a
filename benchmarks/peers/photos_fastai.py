"""photos.py's lines in fastai: fine-tuning to an accuracy, an augmented epoch of Lite0, CIFAR with flip and crop."""
# ruff: noqa: F403, F405, I001  (the star first: what it brings must not replace the names below)

import torchvision_import  # noqa: F401  (must come before fastai)
from fastai.vision.all import *

from contextlib import suppress
from time import perf_counter

from photos_common import CIFAR_BS, CIFAR_LR, GOAL, LITE_BS, MEAN, STD, arguments, cifar_network, lite0_body, report


class Timer(Callback):
    """Note how long training and whole epochs take; end the process at the accuracy aimed at, if there is one."""

    goal = None

    def before_epoch(self):
        self.epoch_start = perf_counter()

    def after_train(self):
        trained_s.append(perf_counter() - self.epoch_start)

    def after_epoch(self):
        epoch_s.append(perf_counter() - self.epoch_start)
        reached.append(self.recorder.log[-1])
        if self.goal and reached[-1] >= self.goal:
            raise Reached("the accuracy aimed at")  # fastai asks for an argument


class Reached(Exception):
    """The accuracy aimed at is there."""


trained_s, epoch_s, reached = [], [], []


def lite0(args):
    """A learner on ants and bees with fastai's usual augmentation, split into body and head."""
    dls = ImageDataLoaders.from_folder(
        args.data,
        valid="valid",
        bs=LITE_BS,
        item_tfms=Resize(256),
        batch_tfms=[*aug_transforms(size=224), Normalize.from_stats(MEAN, STD)],
        num_workers=2,
    )
    model = nn.Sequential(lite0_body(args.weights), create_head(1280, dls.c))
    splitter = lambda m: L(m[0], m[1]).map(params)
    return Learner(dls, model, CrossEntropyLossFlat(), splitter=splitter, metrics=accuracy, cbs=Timer())


def reach(args):
    """Fine-tune as the library does by itself, until the accuracy is there."""
    learn = lite0(args)
    learn.timer.goal = GOAL
    with learn.no_bar(), suppress(Reached):
        learn.fine_tune(args.epochs)
    report(accuracy=reached, epoch_s=epoch_s)


def epoch(args):
    """Train the whole network on augmented photos."""
    learn = lite0(args)
    with learn.no_bar():
        learn.fit(args.epochs, 1e-4)
    report(trained_s=trained_s)


def cifar(args):
    """Train the small network from scratch."""
    dls = ImageDataLoaders.from_folder(
        args.data,
        valid="valid",
        bs=CIFAR_BS,
        item_tfms=[CropPad(40), RandomCrop(32)],
        batch_tfms=[Flip(), Normalize.from_stats(*cifar_stats)],
        num_workers=2,
    )
    learn = Learner(dls, cifar_network(), CrossEntropyLossFlat(), metrics=accuracy, cbs=Timer())
    with learn.no_bar():
        learn.fit_one_cycle(args.epochs, CIFAR_LR)
    report(epoch_s=epoch_s, accuracy=reached[-1])


if __name__ == "__main__":
    args = arguments("reach", "epoch", "cifar")
    {"reach": reach, "epoch": epoch, "cifar": cifar}[args.task](args)
