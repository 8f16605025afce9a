"""The chapter's own cells, in fastai. `pellucid_peer.py` is this file with another import."""
# ruff: noqa: F403, F405, I001  (the star first: what it brings must not replace the names below)

import torchvision_import  # noqa: F401  (must come before fastai)
from fastai.vision.all import *

from time import perf_counter

from common import arguments, report, subset

args = arguments()
torch.set_num_threads(args.threads)
epoch_s, ends = [], []


class EpochTimer(Callback):
    """Note how long every epoch takes, validation included."""

    def before_epoch(self):
        self.epoch_start = perf_counter()

    def after_epoch(self):
        ends.append(perf_counter())
        epoch_s.append(ends[-1] - self.epoch_start)


def conv(ni, nf, ks=3, act=True):
    layers = [nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks // 2)]
    if act:
        layers.append(nn.ReLU())
    layers.append(nn.BatchNorm2d(nf))
    return nn.Sequential(*layers)


def simple_cnn():
    return sequential(
        conv(1, 8, ks=5),  # 14x14
        conv(8, 16),  # 7x7
        conv(16, 32),  # 4x4
        conv(32, 64),  # 2x2
        conv(64, 10, act=False),  # 1x1
        Flatten(),
    )


def get_limited_files(path):
    return subset(get_image_files(path), args.limit)


def main():
    begin = perf_counter()
    mnist = DataBlock(
        blocks=(ImageBlock(cls=PILImageBW), CategoryBlock),
        get_items=get_limited_files if args.limit else get_image_files,
        splitter=GrandparentSplitter("training", "testing"),
        get_y=parent_label,
        batch_tfms=Normalize(),
    )
    dls = mnist.dataloaders(args.data, bs=args.bs)
    learn = Learner(dls, simple_cnn(), loss_func=F.cross_entropy, metrics=accuracy, cbs=EpochTimer())
    learn.fit_one_cycle(args.epochs, 0.06)
    assert sum(p.numel() for p in learn.model.parameters()) == 30_542
    report(epoch_s, ends[0] - begin, learn.recorder.values[-1][-1], dls.train.n, dls.valid.n)


if __name__ == "__main__":
    main()
