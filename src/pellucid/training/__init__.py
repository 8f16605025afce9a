"""The loop, the `Learner`, its callbacks, and what keeps a training's state safe; import from the modules."""
