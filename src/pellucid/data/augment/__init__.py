"""Augmentation: random changes of training batches, on whichever device they are, each image with its own draw."""
