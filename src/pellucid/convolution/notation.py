"""Networks written as a line of words: 'conv 1 8 k5 s2 p2, relu, conv 8 16 k3 s2 p1'.

Layers are divided by commas. Plain numbers are channels or features, in and out; the one in may be left out. The rest:

    k3     kernel; k3x5 is 3 rows and 5 columns    ceil    keep a pooling's last window where it sticks out
    s2     stride (of a pooling its kernel)        nobias  leave out the biases
    p1     padding; p same keeps the size          op1     output padding of a deconv
    d2     dilation                                g4      groups

How many axes a convolution has follows from the input: channels and one, two or three axes of pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NoReturn

from torch import nn

from pellucid.convolution.arithmetic import output_size, same_padding
from pellucid.convolution.fields.units import by
from pellucid.errors import UsageError

Shape = tuple[int, ...]

PLAIN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "flatten": nn.Flatten,
}
ALLOWED = {
    "conv": "k s p d g nobias",
    "dwconv": "k s p d nobias",
    "deconv": "k s p d g op nobias",
    "maxpool": "k s p d ceil",
    "avgpool": "k s p ceil",
    "gap": "",
    "bn": "",
    "linear": "nobias",
    **dict.fromkeys(PLAIN, ""),
}
MEANINGS = {
    "k": "k3 for the kernel",
    "s": "s2 for the stride",
    "p": "p1 or 'p same' for the padding",
    "d": "d2 for the dilation",
    "g": "g4 for the groups",
    "op": "op1 for the output padding",
    "ceil": "ceil",
    "nobias": "nobias",
}
NUMBERS = {"conv": 2, "dwconv": 2, "deconv": 2, "linear": 2, "bn": 1}
GRIDS: dict[str, tuple[Any, Any, Any]] = {
    "conv": (nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "deconv": (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    "maxpool": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    "avgpool": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    "gap": (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    "bn": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
}


def network(text: str, input_size: Shape) -> nn.Sequential:
    """Make the network that a line of words describes.

    Args:
        text: Layers as this module's head explains them: conv, dwconv (depthwise), deconv (transposed), maxpool,
            avgpool, gap (global average pooling), bn, relu, leaky, gelu, silu, sigmoid, tanh, flatten, linear.
        input_size: Channels and pixels of the input, without batch axis.

    Raises:
        UsageError: a word has no meaning there, or a layer does not take what it is given; the text points at the word.
    """
    layers, shape = [], tuple(input_size)
    for part in _parts(text):
        try:
            layer, shape = part.build(shape)
        except (RuntimeError, OverflowError, MemoryError, TypeError):  # torch's, which speak of allocators and overflow
            part._fail(part.kind, f"no memory holds the weights of this {part.kind.text}: use smaller numbers")
        layers.append(layer)
    return nn.Sequential(*layers)


def read_size(text: str) -> Shape:
    """'1x28x28' as (1, 28, 28).

    Raises:
        UsageError: the text is no shape.
    """
    if not re.fullmatch(r"[1-9]\d*([x×][1-9]\d*){0,3}", text):
        raise UsageError(f"input {text!r} is no shape: give channels and pixels without batch axis, such as 1x28x28")
    return tuple(map(int, re.split("[x×]", text)))


@dataclass(frozen=True)
class _Word:
    """A word and where it begins in the text."""

    text: str
    start: int


@dataclass
class _Part:
    """One layer as written: its kind, its plain numbers, and what each letter was given."""

    source: str
    kind: _Word
    numbers: list[_Word] = field(default_factory=list)
    options: dict[str, _Word] = field(default_factory=dict)

    def build(self, shape: Shape) -> tuple[nn.Module, Shape]:
        """The layer for an input of this shape, and the shape of its output."""
        kind = self.kind.text
        if kind in PLAIN:
            return PLAIN[kind](), (prod(shape),) if kind == "flatten" else shape
        if kind == "linear":
            return self._linear(shape)
        if kind == "bn":
            self._channels(shape)
            return GRIDS["bn"][max(0, len(shape) - 2)](shape[0]), shape
        if not 2 <= len(shape) <= 4:
            self._fail(self.kind, f"{kind} needs channels and 1 to 3 axes of pixels, but gets {by(shape)}")
        if kind == "gap":
            return GRIDS["gap"][len(shape) - 2](1), (shape[0], *[1] * (len(shape) - 1))
        return self._pool(shape) if kind in ("maxpool", "avgpool") else self._convolution(shape)

    def _linear(self, shape: Shape) -> tuple[nn.Module, Shape]:
        if len(shape) != 1:
            self._fail(self.kind, f"linear needs a row of features, but gets {by(shape)}: put flatten before it")
        outputs = self._channels(shape)
        return nn.Linear(shape[0], outputs, bias="nobias" not in self.options), (outputs,)

    def _convolution(self, shape: Shape) -> tuple[nn.Module, Shape]:
        n_axes, kind = len(shape) - 1, self.kind.text
        depthwise = kind == "dwconv"
        outputs = self._channels(shape, or_same=depthwise)
        groups = shape[0] if depthwise else self._axes("g", 1, 1)[0]
        if shape[0] % groups or outputs % groups:
            word = self.options.get("g", (self.numbers or [self.kind])[-1])
            self._fail(word, f"{shape[0]} and {outputs} channels cannot be divided into {groups} groups")
        kernel = self._axes("k", n_axes, None)
        stride, dilation, extra = (self._axes(key, n_axes, least) for key, least in (("s", 1), ("d", 1), ("op", 0)))
        padding = self._padding(n_axes)
        transposed = kind == "deconv"
        size = self._size(shape, kernel, stride, padding, dilation, transposed=transposed, output_padding=extra)
        options: dict[str, Any] = {"groups": groups, "bias": "nobias" not in self.options, "dilation": dilation}
        if transposed:
            options["output_padding"] = extra
        make = GRIDS["deconv" if transposed else "conv"][n_axes - 1]
        layer = make(shape[0], outputs, kernel, stride, padding, **options)
        return layer, (outputs, *size)

    def _pool(self, shape: Shape) -> tuple[nn.Module, Shape]:
        n_axes = len(shape) - 1
        kernel = self._axes("k", n_axes, None)
        stride = self._axes("s", n_axes, 1) if "s" in self.options else kernel
        dilation, padding = self._axes("d", n_axes, 1), self._padding(n_axes)
        if padding == "same":
            sides = same_padding(kernel, dilation)
            if any(isinstance(side, tuple) for side in sides):  # pyright: ignore[reportGeneralTypeIssues]
                self._fail(
                    self.options["p"],
                    f"an even kernel keeps a size only with padding {sides} (before, after), which poolings do not "
                    "have: use an odd one",
                )
            padding = sides
        ceil = "ceil" in self.options
        size = self._size(shape, kernel, stride, padding, dilation, ceil_mode=ceil)
        if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(padding, kernel, dilation, strict=True)):  # pyright: ignore
            self._fail(self.options["p"], "padding of a pooling is at most half of its kernel")
        if self.kind.text == "avgpool" and n_axes == 3 and any(k > n for k, n in zip(kernel, shape[1:], strict=True)):
            # avg_pool3d compares its kernel with the axes before padding; every other pooling compares after it
            self._fail(self.kind, f"a kernel of {by(kernel)} does not fit into {by(shape[1:])}, padding left aside")
        make = GRIDS[self.kind.text][n_axes - 1]
        extra = {"dilation": dilation} if self.kind.text == "maxpool" else {}
        return make(kernel, stride, padding, ceil_mode=ceil, **extra), (shape[0], *size)

    def _size(self, shape: Shape, *arguments: Any, **options: Any) -> Shape:
        try:
            return output_size(shape[1:], *arguments, **options)  # pyright: ignore[reportReturnType]
        except UsageError as error:
            self._fail(self.kind, f"{self.kind.text} on {by(shape)}: {error}")

    def _channels(self, shape: Shape, *, or_same: bool = False) -> int:
        """Channels out, after checking the channels in if they are given."""
        kind, values = self.kind.text, [int(word.text) for word in self.numbers]
        optional = or_same or NUMBERS[kind] == 1
        if not values and not optional:
            self._fail(
                self.kind, f"{self.kind.text} needs the number of outputs, such as '{self.kind.text} {shape[0]} 8'"
            )
        if 0 in values:
            self._fail(self.numbers[values.index(0)], "a number of channels is 1 or more")
        if (len(values) == 2 or (values and optional)) and values[0] != shape[0]:
            what = "features" if len(shape) == 1 else "channels"
            self._fail(self.numbers[0], f"{kind} takes {values[0]} {what} here, but is given {by(shape)}")
        return values[-1] if values else shape[0]

    def _axes(self, key: str, n_axes: int, default: int | None) -> Shape:
        """The value of an option on each axis."""
        if key not in self.options:
            if default is None:
                self._fail(self.kind, f"{self.kind.text} needs a kernel, such as k3")
            return (default,) * n_axes
        word = self.options[key]
        values = tuple(map(int, re.findall(r"\d+", word.text)))
        if len(values) not in (1, n_axes):
            self._fail(word, f"{len(values)} numbers for {n_axes} axes")
        if 0 in values and key not in ("p", "op"):
            self._fail(word, f"{word.text}: the number after {key} is 1 or more")
        return values * n_axes if len(values) == 1 else values

    def _padding(self, n_axes: int) -> Any:
        word = self.options.get("p")
        return "same" if word and word.text.endswith("same") else self._axes("p", n_axes, 0)

    def _fail(self, word: _Word, message: str) -> NoReturn:
        raise UsageError(_pointed(self.source, word, message))


def _parts(text: str) -> list[_Part]:
    """The layers of a line, with every word checked against what its kind allows."""
    parts, start = [], 0
    for piece in text.split(","):
        joined = re.sub(r"(?i)\bp\s+same\b", lambda m: re.sub(r"\s", "\0", m[0]), piece)
        words = [_Word(m[0].lower(), start + m.start()) for m in re.finditer(r"\S+", joined)]
        if not words:
            raise UsageError(_pointed(text, _Word(" ", start), f"a layer is missing here: {_kinds()}"))
        if words[0].text not in ALLOWED:
            raise UsageError(_pointed(text, words[0], f"no layer {words[0].text!r}: {_kinds()}"))
        part = _Part(text, words[0])
        for word in words[1:]:
            _take(part, word)
        parts.append(part)
        start += len(piece) + 1
    return parts


def _take(part: _Part, word: _Word) -> None:
    """Put a word of a layer where it belongs."""
    kind = part.kind.text
    if word.text.isdecimal():
        if len(part.numbers) == NUMBERS.get(kind, 0):
            part._fail(word, f"one number too many: {kind} takes {NUMBERS.get(kind, 'none') or 'none'}")
        part.numbers.append(word)
        return
    allowed = ALLOWED[kind].split()
    match = re.fullmatch(r"(k|s|p|d|g|op)\d+([x×]\d+)*|(p)\0*same|(ceil|nobias)", word.text)
    key = next((group for group in match.group(1, 3, 4) if group), "") if match else ""
    if key not in allowed:
        meant = ", ".join(MEANINGS[key] for key in allowed)
        numbers = {1: "the number of channels", 2: "numbers of inputs and outputs"}.get(NUMBERS.get(kind, 0))
        taken = " and ".join(filter(None, (numbers, meant))) or "nothing more"
        part._fail(word, f"{word.text.replace(chr(0), ' ')!r} means nothing to {kind}, which takes {taken}")
    if key in part.options:
        part._fail(word, f"{key} is given twice")
    part.options[key] = word


def _kinds() -> str:
    return "use " + ", ".join(ALLOWED)


def _pointed(source: str, word: _Word, message: str) -> str:
    """A message with the source line and marks under the word it is about."""
    return f"{message}\n  {source}\n  {' ' * word.start}{'^' * len(word.text)}"
