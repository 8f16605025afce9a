"""photos.py's lines in pellucid, and the files that the others need."""
# ruff: noqa: F403, F405, I001  (the star first: what it brings must not replace the names below)

from pellucid.vision.all import *

import os
from time import perf_counter

from PIL import Image, ImageOps

from pellucid.data.images import Decoding
from pellucid.nn.models import simple_cnn
from pellucid.nn.pretrained import pretrained_model
from pellucid.training.features import BATCH
from pellucid.training.memory import keep_freed_memory
from pellucid.training.timing import faster_precision
from photos_common import CIFAR_BS, CIFAR_LR, LITE_BS, MEAN, STD, arguments, cifar_network, report

MANY, FEW = 50_000, 5_000


class Timer(Callback):
    """Note how long training and whole epochs take."""

    def before_epoch(self):
        self.epoch_start = perf_counter()

    def after_train(self):
        trained_s.append(perf_counter() - self.epoch_start)

    def after_epoch(self):
        epoch_s.append(perf_counter() - self.epoch_start)


trained_s, epoch_s = [], []


def make(args):
    """Write the weights, twenty photos of twelve megapixels, and folders of many small ones, unless they are there."""
    torch.save(pretrained_model("efficientnet_lite0").state_dict(), args.weights)
    into, rng = args.weights.parent, np.random.default_rng(0)
    photos = get_image_files(args.data).sorted()[:20]
    for i, file in enumerate(photos):
        large = into / "large" / "photos" / f"{i}.jpg"
        large.parent.mkdir(parents=True, exist_ok=True)
        if not large.exists():
            pixels = np.asarray(Image.open(file).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS))
            grain = rng.normal(0, 3, pixels.shape[:2])[..., None]  # as of a sensor, which makes decoding take longer
            Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(large, quality=90)
    for name, n in (("many", MANY), ("few", FEW)):
        for i in range(0 if (into / name).exists() else n):
            small = into / name / "ab"[i % 2] / f"{i}.jpg"
            small.parent.mkdir(parents=True, exist_ok=True)
            if i < 200:
                image = Image.open(photos[i % len(photos)]).convert("RGB")
                ImageOps.fit(image, (64, 64), centering=(i / 200, i / 200)).save(small, quality=85)
            else:
                os.link(into / name / "ab"[i % 2] / f"{i % 200}.jpg", small)
    report(n=len(photos))


def photos(args, **options):
    return ImageDataLoaders.from_folder(args.data, valid="valid", bs=LITE_BS, item_tfms=Resize(256), **options)


def parts(args):
    """Decode the photos into an empty cache, and pass each once through the body, those to train on also mirrored."""
    start = perf_counter()
    dls = photos(args, batch_tfms=[CenterCrop(224), Normalize(MEAN, STD)])
    decode_s = perf_counter() - start
    body = pretrained_model("efficientnet_lite0")[:-4]
    keep_freed_memory()
    images = torch.rand(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        body(images)
        start = perf_counter()
        for _ in range(-(-(2 * dls.train.n + dls.valid.n) // BATCH)):
            body(images)
        report(decode_s=decode_s, forward_s=perf_counter() - start)


def epoch(args):
    """Train the whole network on augmented photos, and as many steps on one batch, in turns."""
    dls = photos(args, batch_tfms=aug_transforms(size=224))
    learn = vision_learner(dls, "efficientnet_lite0", cbs=Timer())
    learn.unfreeze()
    batch = dls.one_batch()
    fixed = Learner(DataLoaders([batch] * len(dls.train), [batch]), learn.model, learn.loss_func, cbs=Timer())
    times = []
    with learn.no_bar(), fixed.no_bar():
        for _ in range(args.epochs):
            for each in (learn, fixed):
                trained_s.clear()
                each.fit(1, 1e-4)
                times.append(trained_s[0])
    report(trained_s=times[::2], fixed_s=times[1::2])


def cifar(args):
    """Train the small network from scratch, in float32 and in the faster precision; then float32 on one batch."""
    dls = ImageDataLoaders.from_folder(
        args.data, valid="valid", bs=CIFAR_BS, batch_tfms=[Flip(), RandomCrop(padding=4), Normalize()]
    )
    found = {}
    for name in ("fp32", "auto"):
        torch.manual_seed(0)
        learn = Learner(dls, cifar_network(), metrics=accuracy, cbs=Timer())
        learn.precision = "fp32" if name == "fp32" else faster_precision(learn)[0]
        epoch_s.clear()
        with learn.no_bar():
            learn.fit_one_cycle(args.epochs, CIFAR_LR)
        found[name] = {
            "precision": learn.precision,
            "epoch_s": epoch_s.copy(),
            "accuracy": learn.recorder.values[-1][-1],
        }
    batch = dls.one_batch()
    batches = DataLoaders([batch] * len(dls.train), [batch] * len(dls.valid))
    fixed = Learner(batches, cifar_network(), nn.CrossEntropyLoss(), cbs=Timer())
    epoch_s.clear()
    with fixed.no_bar():
        fixed.fit(3, CIFAR_LR)
    report(**found["fp32"], auto=found["auto"], fixed_s=epoch_s[1:])


def decode(args):
    """Decode large photos to 256 pixels, one after the other; how far that is from decoding them in full."""
    decoding, files = Decoding("RGB", Resize(256)), get_image_files(args.data)
    start = perf_counter()
    drafts = [decoding.pixels(file) for file in files]
    per_image_s = (perf_counter() - start) / len(files)
    full = [decoding.pixels(Image.open(file)) for file in files]
    away = np.stack([np.abs(a.astype(int) - b) for a, b in zip(drafts, full, strict=True)])
    report(
        per_image_s=per_image_s,
        mean=float(away.mean()),
        most=float(np.quantile(away, 0.999)),
        largest=int(away.max()),
    )


def memory(args):
    """Memory that is this process's own, and with the pages of files, at the end of an epoch."""
    dls = ImageDataLoaders.from_folder(args.data, valid_pct=0.1, seed=0, bs=512, batch_tfms=[Flip(), Normalize()])
    learn = Learner(dls, simple_cnn(3, 2, 64, width=2), metrics=accuracy)
    with learn.no_bar():
        learn.fit(1, 1e-3)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    mib = {name: int(status[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile", "VmHWM")}
    report(n=dls.train.n + dls.valid.n, **mib)


if __name__ == "__main__":
    tasks = (make, parts, epoch, cifar, decode, memory)
    args = arguments(*(task.__name__ for task in tasks))
    {task.__name__: task for task in tasks}[args.task](args)
