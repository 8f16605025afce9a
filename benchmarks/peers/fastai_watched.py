"""What fastai's ActivationStats costs in fastai's own loop: seconds per step with and without it, a list per way.

The data lie in memory, so that the loop and not the decoding of files is timed.
"""
# ruff: noqa: F403, F405, I001  (the star first: what it brings must not replace the names below)

import torchvision_import  # noqa: F401  (must come before fastai)
from fastai.vision.all import *

import argparse
import json
from statistics import median
from time import perf_counter

from network import simple_cnn


class StepTimer(Callback):
    """Note how long every step takes."""

    order = 1000

    def before_fit(self):
        self.times, self.last = [], perf_counter()

    def after_batch(self):
        now = perf_counter()
        self.times.append(now - self.last)
        self.last = now


def main() -> None:
    """Time the fits in turn, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bs", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60, help="per block")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    xb, yb = torch.randn(args.bs, 1, 28, 28), torch.randint(10, (args.bs,))
    dls = DataLoaders([(xb, yb)] * args.steps, [(xb, yb)])
    learn = Learner(dls, simple_cnn(), loss_func=F.cross_entropy)
    ways = {"unwatched": [], "ActivationStats with histogram": [ActivationStats(with_hist=True)]}
    seconds = {way: [] for way in ways}
    for round_ in range(args.rounds + 1):
        for way, cbs in ways.items():
            timer = StepTimer()
            with learn.no_bar(), learn.no_logging():
                learn.fit(1, 0.01, cbs=[*cbs, timer])
            if round_:  # the first one warms up
                seconds[way].append(median(timer.times[3 : args.steps]))
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
