"""Lightning's Trainer, on tensors in memory (`--mode tensors`) or on files (`--mode imagefolder`).

Logger, checkpoints, progress bar and model summary are off, which is the fastest Lightning gets without other code.
"""
# ruff: noqa: I001

import logging
import warnings
from time import perf_counter

import torchvision_import  # noqa: F401  (must come before lightning, whose metrics import torchvision)
import lightning as L
import torch
import torch.nn.functional as F
from network import LR_MAX, adam, n_correct, simple_cnn
from common import arguments, report
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")


class Classifier(L.LightningModule):
    """The chapter's network, loss, accuracy, optimizer and schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.model = simple_cnn()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        x, y = batch
        logits = self.model(x)
        self.log("valid_loss", F.cross_entropy(logits, y), batch_size=len(x))
        self.log("accuracy", n_correct(logits, y) / len(x), batch_size=len(x))

    def configure_optimizers(self) -> dict:
        optimizer = adam(self)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=LR_MAX,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.25,
            final_div_factor=4000,  # of the initial rate, which is a 25th of the maximum
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class EpochTimer(L.Callback):
    """Note when every epoch ends; Lightning validates before `on_train_epoch_end`."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_start(self, *_: object) -> None:
        self.times.append(perf_counter())

    def on_train_epoch_end(self, *_: object) -> None:
        self.times.append(perf_counter())


def main() -> None:
    """Train, validate, report."""
    args = arguments("tensors", "imagefolder")
    torch.set_num_threads(args.threads)
    begin = perf_counter()
    if args.mode == "tensors":
        from tensors import load

        splits = [TensorDataset(*split) for split in load(args)]
        training = DataLoader(splits[0], args.bs, shuffle=True, drop_last=True)
        valid = DataLoader(splits[1], args.bs)
    else:
        from folders import loaders

        training, valid = loaders(args)
    timer = EpochTimer()
    trainer = L.Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(Classifier(), training, valid)
    epoch_s = [end - start for start, end in zip(timer.times, timer.times[1:], strict=False)]
    accuracy = trainer.callback_metrics["accuracy"].item()
    report(epoch_s, timer.times[1] - begin, accuracy, len(training.dataset), len(valid.dataset))


if __name__ == "__main__":
    main()
