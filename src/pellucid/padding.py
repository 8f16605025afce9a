"""How many zeros TensorFlow's and PyTorch's 'same' padding puts at each side of an image."""

from __future__ import annotations


def same_sides(n: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Padding before and after one axis of n pixels that makes ⌈n / stride⌉ outputs, the smaller half before.

    At stride 1 it is PyTorch's 'same', which does not depend on n; at others it is TensorFlow's
    (tf.nn, "Notes on padding").
    """
    total = max((-(-n // stride) - 1) * stride + dilation * (kernel - 1) + 1 - n, 0)
    return total // 2, total - total // 2
