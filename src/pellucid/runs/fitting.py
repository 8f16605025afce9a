"""What a training does where its user left it open: the network, the size of the images, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pellucid.data.augment.recipes import augmentation
from pellucid.data.images import Resize
from pellucid.data.transforms import Normalize
from pellucid.errors import UsageError
from pellucid.nn.libraries import is_library
from pellucid.nn.pretrained import WEIGHTS
from pellucid.runs.settings import Settings
from pellucid.runs.sizes import STEP, USUAL_SIDE, fitting_side

PHOTO_ARCH = "efficientnet_lite0"
PHOTO_SIDE = 64  # pixels; on smaller images a network of their own is much faster, and a photo network sees little
PHOTO_SIZE = 224  # what most weights were learnt from
# Share of a side that the network sees of a photo, cut out of the middle, as its weights were measured. On random
# splits of 400 photos of ants and bees the probe has 0.959 with it, 0.949 on whole images of 224 pixels, 0.955 of 256.
KEPT = 0.875
RATES = {"new": 5e-3, "pretrained": 1e-3}


def is_pretrained(arch: str | None) -> bool:
    """Whether a training of this architecture begins with published weights."""
    return arch is not None and (arch in WEIGHTS or is_library(arch))


def fitted(settings: Settings, typical: int | None, *, of_files: bool) -> Settings:
    """The settings with an architecture, size, rate and augmentation, as far as the images decide.

    Args:
        settings: As a user gave them.
        typical: Short side of the image files in pixels, None where it is not known.
        of_files: Whether the images are files, which have no size of their own.

    Raises:
        UsageError: something was asked for that only pretrained networks have.
    """
    arch = settings.arch
    if arch is None and of_files:
        are_photos = (typical or 0) >= PHOTO_SIDE and not 0 < (settings.size or 0) < PHOTO_SIDE
        arch = PHOTO_ARCH if are_photos else "small_resnet"
    pretrained, size = is_pretrained(arch), settings.size
    if not pretrained and (settings.probe or settings.freeze_epochs):
        what = "the probe is" if settings.probe else "freeze_epochs are"
        raise UsageError(
            f"{what} for networks with pretrained weights, such as {PHOTO_ARCH}, and this is "
            f"{arch or 'a network of its own'}: name one as arch (command line: --arch {PHOTO_ARCH})"
        )
    if of_files and size != 0:
        usual = (WEIGHTS[arch].size if arch in WEIGHTS else PHOTO_SIZE) if pretrained else USUAL_SIDE
        size = fitting_side(size, typical, usual, pretrained=pretrained)
    elif pretrained and size is None:
        size = 2 * STEP
    return replace(
        settings,
        arch=arch,
        size=size,
        lr=settings.lr or RATES["pretrained" if pretrained else "new"],
        augment=settings.augment or ("light" if pretrained else "none"),
    )


def image_steps(settings: Settings) -> dict[str, Any]:
    """The item and batch transforms of fitted settings.

    Photos for a pretrained network are kept a little larger than it sees them: parts of them are still sharp then. Of
    padded or squished ones nothing is cut off.
    """
    size, augment = settings.size, settings.augment or "none"
    own = [] if is_pretrained(settings.arch) else [Normalize()]  # what belongs to weights comes with them
    if size and not own and settings.resize == "crop":
        larger = Resize(round(size / KEPT))
        return {"item_tfms": larger, "batch_tfms": augmentation(augment, size, kept=KEPT)}
    resize = Resize(size, settings.resize, "zeros") if size else None
    return {"item_tfms": resize, "batch_tfms": [*augmentation(augment), *own]}
