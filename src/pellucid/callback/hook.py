"""Everything the chapter imports from `fastai.callback.hook`."""

from pellucid.activations.hook import Hook, Hooks, has_params, hook_output, hook_outputs
from pellucid.training.callbacks.statistics import ActivationStats, HookCallback

__all__ = ["ActivationStats", "Hook", "HookCallback", "Hooks", "has_params", "hook_output", "hook_outputs"]
