"""Import torchvision also beside a PyTorch without CUDA.

PyPI's Linux wheel of torchvision links its compiled operators against CUDA. Beside a CPU-only PyTorch they do not load,
and `import torchvision` then stops at "operator torchvision::nms does not exist", because it attaches a shape function
to two operators that were never declared. Declaring the two names is enough. Nothing measured here uses a compiled
operator (ImageFolder decodes with Pillow), so the stub cannot change a timing. Where torchvision imports as it is,
this module does nothing.
"""

import sys

import torch

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")  # module level: the declarations go when it is collected
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
