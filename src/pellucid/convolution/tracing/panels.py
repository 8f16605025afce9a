"""What the picture of a trace shows: one panel for the image and for each layer on the way to the activation."""

from __future__ import annotations

import numpy as np

from pellucid.convolution.connectivity import Kernel
from pellucid.convolution.tracing.calculation import Unit
from pellucid.convolution.tracing.network import Network
from pellucid.convolution.tracing.tangent import Full
from pellucid.inspection.calls import IMAGE
from pellucid.plot.precedents import Panel
from pellucid.text import drawable

LARGEST_KERNEL = 11


def panels(network: Network, place: int, unit: Unit, full: Full) -> list[Panel]:
    """Panels from the image to the activation, along the sources with the largest part in it where layers branch.

    Of each layer the channel is drawn that has the largest part in the activation; its kernel is the one over the
    channel drawn before it.
    """
    last, last_unit = network.unreshaped(place, unit)
    lit = network.back(last, last_unit)
    way = _way(network, full, last)
    drawn: list[Panel] = []
    channel_before = 0
    for step in way:
        chosen = last_unit if step == last else None
        channel = chosen[0] if chosen else _strongest(network, full, step, lit[step])
        drawn.append(_panel(network, step, channel, lit[step], chosen, channel_before))
        channel_before = channel
    return [_with_total(drawn[0], full), *drawn[1:]]


def _way(network: Network, full: Full, place: int) -> list[int]:
    """Places whose outputs are drawn, image first: last calls of stages, and the place of the trace."""
    tails = {stage.tail for stage in network.stages}
    way = [place]
    while place != IMAGE:
        sources = [join.source for join in network.joins[place]]
        if not sources:
            break
        place = max(sources, key=lambda n: _part(network, full, n).max())
        if place in tails or place == IMAGE:
            way.insert(0, place)
    return way if way[0] == IMAGE else [IMAGE, *way]


def _part(network: Network, full: Full, place: int) -> np.ndarray:
    """How much each unit adds to the activation, as far as the tangent tells: (channel, *grid), not negative."""
    weights = full.weights if place == IMAGE else full.layers[network.label(place)]
    return np.abs(weights * _values(network, place))


def _strongest(network: Network, full: Full, place: int, lit: np.ndarray) -> int:
    part = np.where(lit, _part(network, full, place), -1)
    return int(np.unravel_index(part.argmax(), part.shape)[0])


def _values(network: Network, place: int) -> np.ndarray:
    output = network.image if place == IMAGE else network.calls[place].output
    return output[0].double().cpu().numpy()


def _panel(
    network: Network, place: int, channel: int, lit: np.ndarray, unit: tuple[int, ...] | None, channel_before: int
) -> Panel:
    values = _values(network, place)
    if place == IMAGE:
        colour = len(values) == 3
        picture = _scaled(values.transpose(1, 2, 0) if colour else values[channel])
        return Panel(picture, np.asarray(lit.any(0)) if colour else lit[channel], None, "image", is_image=True)
    stage = next((stage for stage in network.stages if place in stage.calls), None)
    name = network.stage_label(stage) if stage and stage.tail == place else network.label(place)
    single = values[0].size == 1
    name = drawable(name)
    title = f"layer {name}\n{len(values)} channels" if single else f"layer {name}\nchannel {channel} of {len(values)}"
    kernel, caption, largest = _kernel(network, stage.calls[0] if stage else place, channel, channel_before)
    cell = None if unit is None else _cell(unit, values.shape)
    return Panel(_plane(values, channel), _plane(lit, channel).astype(bool), cell, title, kernel, caption, largest)


def _kernel(
    network: Network, place: int, channel: int, channel_before: int
) -> tuple[np.ndarray | None, str, float | None]:
    """The two-dimensional kernel from the channel drawn before to this one, if the layer has one.

    With it come its caption and the layer's largest weight: on a scale of its own, a kernel near zero looks strong.
    """
    connection = network.connections[place]
    weights = connection.weights
    if not isinstance(weights, Kernel) or weights.weight.ndim != 4:
        return None, "", None
    channels = connection.window((channel, *[0] * (len(connection.shape_out) - 1)))[0].tolist()
    if channel_before not in channels or max(weights.weight.shape[2:]) > LARGEST_KERNEL:
        return None, "", None
    kernel = weights.of_feature(channel)[channels.index(channel_before)].double().cpu().numpy()
    largest = float(weights.weight.detach().abs().max())
    return kernel, f"kernel of channel {channel} over channel {channel_before}", largest


def _with_total(panel: Panel, full: Full) -> Panel:
    return Panel(
        panel.picture, panel.lit, None, panel.title, full.weights.sum(0), "total weight of each pixel", is_image=True
    )


def _plane(values: np.ndarray, channel: int) -> np.ndarray:
    """One channel as rows and columns; single numbers per channel all together."""
    if values[0].size > 1:
        return values[channel].reshape(-1, values.shape[-1])
    wide = _wide(len(values))
    filled = np.full(-(-len(values) // wide) * wide, np.nan if values.dtype != bool else False)
    filled[: len(values)] = values.reshape(-1)
    return filled.reshape(-1, wide)


def _cell(unit: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int]:
    if np.prod(shape[1:]) == 1:
        return unit[0] // _wide(shape[0]), unit[0] % _wide(shape[0])
    place = int(np.ravel_multi_index(unit[1:], shape[1:]))
    return place // shape[-1], place % shape[-1]


def _wide(n: int) -> int:
    return 1 if n <= 12 else int(np.ceil(np.sqrt(n)))


def _scaled(pixels: np.ndarray) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    return (pixels - low) / (high - low if high > low else 1)
