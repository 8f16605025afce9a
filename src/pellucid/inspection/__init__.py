"""Run a model and keep what happened, without changing it; import from the modules."""
