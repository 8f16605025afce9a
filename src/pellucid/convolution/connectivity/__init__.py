"""What every operation reads of its inputs, once: receptive fields, traces, matrices, sheets and the page follow it.

To add an operation, write one rule: a function under `rule("ItsClassName")`, called with the output's shape, the input
and the module's attributes, which returns `Read`s. `windows`, `values` and `shapes` have the rules for PyTorch's own.
"""

from __future__ import annotations

from pellucid.convolution.connectivity import axes, shapes, values, windows
from pellucid.convolution.connectivity.connection import Connection, connection_of
from pellucid.convolution.connectivity.moves import Gather, Permute, Reshape
from pellucid.convolution.connectivity.registry import Input, Read, inputs_in, reads_of, rule, rule_of
from pellucid.convolution.connectivity.weights import Copy, Function, Kernel, Largest, Mean, Standardized

__all__ = [
    "Connection", "Copy", "Function", "Gather", "Input", "Kernel", "Largest", "Mean", "Permute", "Read", "Reshape",
    "Standardized", "axes", "connection_of", "inputs_in", "reads_of", "rule", "rule_of", "shapes", "values", "windows",
]  # fmt: skip
