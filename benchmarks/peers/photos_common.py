"""What the peers of photos.py share: command line, one JSON line at the end, and the very same networks.

The networks are pellucid's classes out of this repository, so that only the libraries around them are compared.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append(str(Path(__file__).resolve().parents[2] / "src"))  # last: an installed pellucid is measured as it is
from pellucid.nn.efficientnet import efficientnet_lite
from pellucid.nn.models import small_resnet

MEAN, STD = [127 / 255] * 3, [128 / 255] * 3  # of Lite0's weights
GOAL = 0.95
LITE_BS, CIFAR_BS, CIFAR_LR = 32, 128, 5e-3


def arguments(*tasks: str) -> argparse.Namespace:
    """Parse the command line of a peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="Lite0's state dict, under pellucid's names")
    parser.add_argument("--epochs", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    return args


def lite0_body(weights: Path) -> nn.Sequential:
    """EfficientNet-Lite0 up to its 1,280 maps, with its ImageNet weights."""
    model = efficientnet_lite("efficientnet_lite0")
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model[:-4]


def cifar_network() -> nn.Module:
    """The residual network of pellucid for ten classes."""
    return small_resnet(3, 10, 32)


def report(**found: object) -> None:
    """Print the result as the last line of the process."""
    print("\n" + json.dumps(found), flush=True)
