"""Layers described: in the notation of `pellucid.convolution.notation`, and for a reader."""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from torch.nn.modules import conv, pooling

from pellucid.convolution.notation import GRIDS, PLAIN

WORDS = {make.__name__.lower(): word for word, make in PLAIN.items()}  # pyright: ignore[reportAttributeAccessIssue]


POOLINGS = pooling._MaxPoolNd, pooling._AvgPoolNd
SIZED = conv._ConvNd, *POOLINGS  # what has a kernel, and options to say of it


def describe(module: nn.Module) -> str:
    """A layer in words that `network` takes; the class name of one that has no word."""
    kind = type(module).__name__.lower()
    family = re.sub(r"\dd$", "", kind)
    m: Any = module
    if isinstance(module, (*GRIDS["conv"], *GRIDS["deconv"])):
        depthwise = m.groups == m.in_channels > 1 and not m.transposed
        word = "deconv" if m.transposed else "dwconv" if depthwise else "conv"
        words = [word, str(m.in_channels), str(m.out_channels), *_options(m, stride=1)]
        words += [f"g{m.groups}"] if m.groups > 1 and not depthwise else []
        words += [f"op{_times(m.output_padding)}"] if any(m.output_padding) else []
        words += [] if m.bias is not None else ["nobias"]
        return " ".join(words if m.padding_mode == "zeros" else [*words, m.padding_mode])
    if isinstance(module, (*GRIDS["maxpool"], *GRIDS["avgpool"])):
        words = [family, *_options(m, stride=m.kernel_size), *(["ceil"] if m.ceil_mode else [])]
        return " ".join(words)
    if isinstance(module, nn.Linear):
        return f"linear {m.in_features} {m.out_features}" + ("" if m.bias is not None else " nobias")
    if isinstance(module, GRIDS["bn"]):
        return f"bn {m.num_features}"
    if isinstance(module, GRIDS["gap"]) and m.output_size in (1, (1, 1), (1, 1, 1)):
        return "gap"
    return WORDS.get(kind, type(module).__name__)


def settings(module: Any) -> str:
    """Kernel and options of one of `SIZED`: `3×3, stride 2, padding 1 (reflect), 4 groups`.

    A stride of 1 is left out of a convolution, but never a pooling's: it may be the kernel's size, or any other.
    """
    n_axes = next(int(found[1]) for c in type(module).__mro__ if (found := re.search(r"(\d)d$", c.__name__)))
    size, groups = module.kernel_size, getattr(module, "groups", 1)
    shown = lambda value: value if isinstance(value, str) else _times(value).replace("x", "×")
    stride, padding, dilation = (shown(getattr(module, name, 1)) for name in ("stride", "padding", "dilation"))
    words = ["×".join(map(str, (size,) * n_axes if isinstance(size, int) else size))]
    if stride != "1" or isinstance(module, POOLINGS):
        words.append(f"stride {stride}")
    if padding not in ("0", "valid"):
        mode = getattr(module, "padding_mode", "zeros")
        words.append(f"padding {padding}" + ("" if mode == "zeros" else f" ({mode})"))
    if dilation != "1":
        words.append(f"dilation {dilation}")
    return ", ".join(words if groups == 1 else [*words, f"{groups} groups"])


def _options(module: Any, stride: Any) -> list[str]:
    """Kernel, and what differs from the defaults."""
    words = [f"k{_times(module.kernel_size)}"]
    if _times(module.stride) != _times(stride):
        words.append(f"s{_times(module.stride)}")
    if module.padding == "same" or (module.padding != "valid" and _times(module.padding) != "0"):
        words.append("p same" if module.padding == "same" else f"p{_times(module.padding)}")
    if _times(getattr(module, "dilation", 1)) != "1":
        words.append(f"d{_times(module.dilation)}")
    return words


def _times(values: int | tuple[int, ...]) -> str:
    """3 for 3 and (3, 3), 3x5 for (3, 5)."""
    several = (values,) if isinstance(values, int) else values
    return str(several[0]) if len(set(several)) == 1 else "x".join(map(str, several))
