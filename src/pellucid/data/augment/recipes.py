"""Whole sets of augmentations: fastai's, and by the name of a strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pellucid.data.augment.crops import RandomResizedCropGPU
from pellucid.data.augment.draws import check_share
from pellucid.data.augment.erasing import RandomErasing
from pellucid.data.augment.geometry import Dihedral, Flip, Geometry, Rotate, Warp, Zoom, composed
from pellucid.data.augment.lighting import Brightness, Contrast, Lighting, Saturation, lit
from pellucid.data.augment.resampling import Size
from pellucid.data.augment.sizing import CenterCropResize
from pellucid.data.transforms import BatchTransform
from pellucid.errors import UsageError


def setup_aug_tfms(tfms: Sequence[BatchTransform]) -> list[BatchTransform]:
    """Put all movements into one resampling and all changes of light into one pass, in front of what else there is."""
    moving = [t for t in tfms if isinstance(t, Geometry)]
    lighting = [t for t in tfms if isinstance(t, Lighting)]
    others = [t for t in tfms if not isinstance(t, Geometry | Lighting)]
    return [*([composed(moving)] if moving else []), *([lit(lighting)] if lighting else []), *others]


def aug_transforms(
    mult: float = 1.0,
    do_flip: bool = True,
    flip_vert: bool = False,
    max_rotate: float = 10.0,
    min_zoom: float = 1.0,
    max_zoom: float = 1.1,
    max_lighting: float = 0.2,
    max_warp: float = 0.2,
    p_affine: float = 0.75,
    p_lighting: float = 0.75,
    xtra_tfms: Any = None,
    size: Size | None = None,
    mode: str = "bilinear",
    pad_mode: str = "reflection",
    align_corners: bool = True,
    batch: bool = False,
    min_scale: float = 1.0,
) -> list[BatchTransform]:
    """Flip, warp, rotate, zoom, brightness and contrast: what suits most photos.

    All movements are one resampling, and both changes of light one pass. With a `size`, validation images are brought
    to it, without anything random: see `validation` of `Geometry`.

    Args:
        mult: Multiplies `max_rotate`, `max_lighting` and `max_warp`.
        do_flip: Mirror half of the images left to right.
        flip_vert: Turn and mirror them in all eight ways, instead.
        max_rotate: Largest angle in degrees.
        min_zoom: Smallest factor of zooming.
        max_zoom: Largest factor.
        max_lighting: Greatest change of brightness and contrast.
        max_warp: Greatest change of perspective.
        p_affine: Share of the images that are warped, that are rotated and that are zoomed.
        p_lighting: Share of the images with another brightness, and with another contrast.
        xtra_tfms: Further transforms.
        size: Side of the result in pixels, or (height, width); None for the images' own.
        mode: `bilinear`, `nearest` or `bicubic`.
        pad_mode: What is outside an image: `zeros`, its `border`, or its `reflection`.
        align_corners: As of `resample`.
        batch: One draw for the whole batch.
        min_scale: Below 1, cut a part out at random, square, at least this share of the area; it needs a `size`.

    Raises:
        UsageError: an argument that makes no sense.
    """
    if min_scale != 1 and size is None:
        raise UsageError("min_scale cuts out parts that are brought to one size: give it, such as size=224")
    check_share("p_affine", p_affine)
    check_share("p_lighting", p_lighting)
    max_rotate, max_lighting, max_warp = (value * mult for value in (max_rotate, max_lighting, max_warp))
    sampling: dict[str, Any] = {"mode": mode, "pad_mode": pad_mode, "align_corners": align_corners, "batch": batch}
    found: list[BatchTransform] = []
    if size is not None and min_scale == 1:
        found.append(Geometry([], size, mode, pad_mode, align_corners))
    if do_flip:
        found.append(Dihedral(0.5, **sampling) if flip_vert else Flip(0.5, **sampling))
    if max_warp:
        found.append(Warp(max_warp, p_affine, **sampling))
    if max_rotate:
        found.append(Rotate(max_rotate, p_affine, **sampling))
    if min_zoom < 1 or max_zoom > 1:
        found.append(Zoom(min_zoom, max_zoom, p_affine, **sampling))
    if max_lighting:
        found += [kind(max_lighting, p_lighting, batch=batch) for kind in (Brightness, Contrast)]
    if size is not None and min_scale != 1:
        found.append(RandomResizedCropGPU(size, min_scale, (1, 1), mode))
    return setup_aug_tfms(found + _listed(xtra_tfms))


def _light(size: Size | None) -> list[BatchTransform]:
    scale = 1 if size is None else 0.75
    return aug_transforms(max_rotate=5, max_lighting=0.1, max_warp=0, size=size, min_scale=scale)


def _strong(size: Size | None) -> list[BatchTransform]:
    scale = 1 if size is None else 0.35
    return aug_transforms(size=size, min_scale=scale, xtra_tfms=[Saturation(), RandomErasing(0.25, sh=0.2)])


def _sized(size: Size | None) -> list[BatchTransform]:
    if size is None:
        return []
    middle = CenterCropResize(size)
    object.__setattr__(middle, "split_idx", None)  # of training images too
    return [middle]


# Each makes the transforms of one strength, given the size of the images that they are to give (None: their own).
AUGMENTATIONS: dict[str, Callable[[Size | None], list[BatchTransform]]] = {
    "none": _sized,
    "light": _light,
    "strong": _strong,
}


def augmentation(name: str, size: Size | None = None, kept: float = 1.0) -> list[BatchTransform]:
    """The batch transforms of one strength; `pellucid train --augment` takes it by name.

    Args:
        name: `none`; `light`: flips, turns by up to 5 degrees, zooms by up to a tenth, a little light; `strong`:
            `aug_transforms` as it is, with saturation, and noise over up to a fifth of a quarter of the images. With a
            size, both cut out parts: at least 0.75 of the area for `light`, 0.35 for `strong`.
        size: Side of the result in pixels, or (height, width); None for the images' own.
        kept: With a size, share of a side that is cut out of the middle of images that are not changed at random: those
            of validation, and with `none` all.

    Raises:
        UsageError: there is no such strength.
    """
    if name not in AUGMENTATIONS:
        raise UsageError(f"augmentation {name!r} does not exist: use one of {', '.join(AUGMENTATIONS)}")
    found = AUGMENTATIONS[name](size)
    for each in found:
        if isinstance(each, CenterCropResize):
            object.__setattr__(each, "scale", kept)
        elif isinstance(each, Geometry) and each.validation is not None:
            each.validation = replace(each.validation, scale=kept)
    return found


def _listed(tfms: Any) -> list[BatchTransform]:
    if tfms is None:
        return []
    given: Any = (tfms,) if callable(tfms) else tfms
    return list(given)
