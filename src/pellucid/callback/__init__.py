"""A door: callbacks under fastai's import path. The code is in `pellucid.training.callbacks`."""
