"""Augmentation: random changes of training batches, on whichever device they are, each image with its own draw.

Written here rather than taken from kornia, which needs 1.5 to 3.6 times as long for the same: docs/augmentation.md.
"""
