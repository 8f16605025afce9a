"""What all peer scripts share: command line, choice of a subset, and the one JSON line they end with."""

import argparse
import json
import random
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

MIB = 2**20


def arguments(*modes: str) -> argparse.Namespace:
    """Parse the command line of a peer; `modes` are the values of `--mode`, the first one being the default."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with training/<digit>/*.png and testing/…")
    parser.add_argument("--bs", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--limit", type=int, help="images in total, six sevenths of them for training; default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tensors", type=Path, help="decoded copy of DATA, written if missing (tensor peers only)")
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, default=True, help="(bare only)")
    parser.add_argument("--channels-last", action="store_true", help="(bare only)")
    if modes:
        parser.add_argument("--mode", choices=modes, default=modes[0])
    return parser.parse_args()


def subset(files: Sequence[Path], limit: int | None) -> list[Path]:
    """Draw `limit` of the files, always the same ones, six sevenths of them from the training folder."""
    if limit is None:
        return list(files)
    files = sorted(files)
    random.Random(0).shuffle(files)
    n_train = limit * 6 // 7
    training = [file for file in files if file.parent.parent.name == "training"]
    testing = [file for file in files if file.parent.parent.name == "testing"]
    return training[:n_train] + testing[: limit - n_train]


def peak_rss_mib() -> float:
    """Highest resident memory of this process, workers not counted; macOS counts in bytes, Linux in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB


def report(epoch_s: list[float], first_s: float, accuracy: float, n_train: int, n_valid: int) -> None:
    """Print the result as the last line of the process.

    `epoch_s` counts training and validation; `first_s` runs from before the files are listed to the first epoch's end.
    """
    result = {
        "epoch_s": [round(seconds, 4) for seconds in epoch_s],
        "first_s": round(first_s, 4),
        "accuracy": round(accuracy, 4),
        "peak_rss_mib": round(peak_rss_mib(), 1),
        "n_train": n_train,
        "n_valid": n_valid,
    }
    print("\n" + json.dumps(result), flush=True)
