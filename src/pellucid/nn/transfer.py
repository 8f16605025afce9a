"""A network in two parts, a body that was trained on other images and a head, which knows how it is made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.errors import UsageError
from pellucid.importing import json_arguments
from pellucid.nn.heads import create_body, create_head
from pellucid.nn.libraries import Images, is_library, library_images, library_model
from pellucid.nn.models import check_own, create_model
from pellucid.nn.pretrained import WEIGHTS, load_part, pretrained_model, read_weights
from pellucid.seed import kept_rng

Cut = int | Callable[[nn.Module], nn.Module] | None


@dataclass(frozen=True)
class Architecture:
    """What a run folder says of a network.

    Attributes:
        name: A name of `pellucid.nn.models`, or one such as `timm:resnet50`.
        arguments: Of the network; `head` holds those of `create_head`, and `cut` where the body ends.
        weights: What it began with, and what images those weights were learnt from; for readers alone.
    """

    name: str
    arguments: Mapping[str, Any]
    weights: Mapping[str, Any] = field(default_factory=dict)

    def with_head(self, options: Mapping[str, Any]) -> Architecture:
        """The same network with a head that `create_head` makes with these options."""
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
        return replace(self, arguments={**self.arguments, "head": listed})


class BodyAndHead(nn.Sequential):
    """A body and a head, one after the other.

    Args:
        body: Images → maps or features.
        head: These → outputs.
        architecture: How both are made again; None if nobody knows, as of a head of one's own.
    """

    def __init__(self, body: nn.Module, head: nn.Module, architecture: Architecture | None = None):
        super().__init__(body, head)
        self.architecture = architecture


def with_head(arch: str, arguments: Mapping[str, Any], n_in: int, n_out: int, size: int) -> BodyAndHead:
    """Make a network from its description, with new weights.

    Args:
        arch: A name of `pellucid.nn.models`, or one such as `timm:resnet50`.
        arguments: See `Architecture`; the head's need `nf`, the channels of the maps.
        n_in: Image channels.
        n_out: Classes.
        size: Longest side of the images, in pixels.
    """
    of_network = dict(arguments)
    head, cut = of_network.pop("head"), of_network.pop("cut", None)
    if arch.startswith("timm:") and cut is None:  # without classifier it is a body
        body = library_model(arch, n_in, 0, of_network)
    else:
        body = body_of(arch, create_model(arch, n_in, n_out, size, **of_network), cut)
    return BodyAndHead(body, create_head(n_out=n_out, **head), Architecture(arch, arguments))


def body_of(arch: str, network: nn.Module, cut: Cut) -> nn.Module:
    """The part before the last pooling, see `create_body`.

    Raises:
        UsageError: where the body ends is not known.
    """
    if cut is None and is_library(arch):
        if hasattr(network, "aux_logits"):
            raise UsageError(f"{arch} has outputs on its way, so it has no body: take timm's")
        # Many kinds of blocks pool inside, to weigh their channels; only the last child but one is the pooling itself.
        children = list(network.children())
        pooling = [
            i for i, child in enumerate(children) if any(isinstance(m, nn.AdaptiveAvgPool2d) for m in child.modules())
        ]
        cut = pooling[-1] if pooling and pooling[-1] else -1
    return create_body(network, cut)


def pretrained_body(
    arch: str,
    image: Tensor,
    n_out: int,
    cut: Cut,
    arguments: Mapping[str, Any],
    pretrained: bool,
    file: str | Path | None = None,
    sha256: str | None = None,
) -> tuple[nn.Module, Images | None, Architecture]:
    """The body of a network, to learn from.

    Args:
        arch: A name in `WEIGHTS`, or one such as `timm:resnet50`; with a file or new weights any of `ARCHITECTURES`.
        image: A batch of one, to see whether a network of timm has maps (batch, channel, row, column).
        n_out: Classes.
        cut: Where the body ends, see `create_body`.
        arguments: Of the network.
        pretrained: With its published weights, unless there is a file.
        file: Weights to take instead, see `read_weights`.
        sha256: Of the file.

    Returns:
        The body; what its published weights were learnt from, if that is known; how it is made again.

    Raises:
        UsageError: there is no such architecture, there are no weights for it, or they do not fit.
    """
    published, kept = pretrained and file is None, json_arguments(arguments, arch)
    state = None if file is None else read_weights(file, sha256)
    network, images = _network(arch, image.shape[1], n_out, max(image.shape[2:]), kept, published)
    whole = network.state_dict(keep_vars=True)
    if arch.startswith("timm:") and cut is None:
        kept |= {"global_pool": ""} if _has_maps(arch, network, image) else {}
        network.reset_classifier(0, kept.get("global_pool"))
        body = network
    else:
        body = body_of(arch, network, cut)
    if state is not None and file is not None:
        load_part(whole, body, state, file)
    weights = {"published": published, "file": None if file is None else str(file), "sha256": sha256}
    if images is not None:
        weights |= {each.name: getattr(images, each.name) for each in fields(Images)}
    return body, images, Architecture(arch, kept | ({} if cut is None else {"cut": cut}), weights)


def _network(
    arch: str, n_in: int, n_out: int, size: int, arguments: dict[str, Any], published: bool
) -> tuple[Any, Images | None]:
    """A whole network with its published weights or new ones, and what images the published ones are for."""
    if is_library(arch):
        network = library_model(arch, n_in, None, arguments, published)
        return network, library_images(arch, network)
    if not published:
        return create_model(arch, n_in, n_out, size, **arguments), WEIGHTS.get(arch)
    check_own(arch)
    network = pretrained_model(arch, n_in)
    if arguments:
        raise UsageError(f"the weights of {arch} fit no other arguments: {', '.join(arguments)} would have no effect")
    return network, WEIGHTS[arch]


def _has_maps(arch: str, network: Any, image: Tensor) -> bool:
    """Whether timm's network has features (batch, channel, row, column); others have tokens, or channels last."""
    training = network.training
    with torch.no_grad(), kept_rng():
        try:
            found = network.eval().forward_features(image)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"the body of {arch} cannot take images {tuple(image.shape[1:])}: {error}") from None
    network.train(training)
    return found.dim() == 4 and found.shape[1] == network.num_features
