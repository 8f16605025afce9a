"""What a convolution is: its arithmetic, kernels, matrix, receptive fields, precedents and spreadsheet.

`from pellucid import convolution as cv`; names load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.convolution import kernels
    from pellucid.convolution.arithmetic import input_sizes, multiplications, output_size, parameters, same_padding
    from pellucid.convolution.channels import compare_channels
    from pellucid.convolution.fields.receptive import effective_field, receptive_field
    from pellucid.convolution.figures import show_application, show_channels, show_gallery, show_positions
    from pellucid.convolution.mapping import apply_kernel, channel_products, feature_map
    from pellucid.convolution.matrices.matrix import as_matrix
    from pellucid.convolution.notation import network
    from pellucid.convolution.sheets.spreadsheet import to_spreadsheet
    from pellucid.convolution.summary import layer_counts
    from pellucid.convolution.tracing.precedents import trace

_HOMES = {
    "apply_kernel": "mapping",
    "as_matrix": "matrices.matrix",
    "channel_products": "mapping",
    "compare_channels": "channels",
    "effective_field": "fields.receptive",
    "feature_map": "mapping",
    "input_sizes": "arithmetic",
    "layer_counts": "summary",
    "multiplications": "arithmetic",
    "network": "notation",
    "output_size": "arithmetic",
    "parameters": "arithmetic",
    "receptive_field": "fields.receptive",
    "same_padding": "arithmetic",
    "show_application": "figures",
    "show_channels": "figures",
    "show_gallery": "figures",
    "show_positions": "figures",
    "to_spreadsheet": "sheets.spreadsheet",
    "trace": "tracing.precedents",
}

__all__ = [
    "apply_kernel",
    "as_matrix",
    "channel_products",
    "compare_channels",
    "effective_field",
    "feature_map",
    "input_sizes",
    "kernels",
    "layer_counts",
    "multiplications",
    "network",
    "output_size",
    "parameters",
    "receptive_field",
    "same_padding",
    "show_application",
    "show_channels",
    "show_gallery",
    "show_positions",
    "to_spreadsheet",
    "trace",
]


def __getattr__(name: str) -> Any:
    if name == "kernels":
        return import_module("pellucid.convolution.kernels")
    if name not in _HOMES:
        raise AttributeError(f"module 'pellucid.convolution' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"pellucid.convolution.{_HOMES[name]}"), name)
    return value
