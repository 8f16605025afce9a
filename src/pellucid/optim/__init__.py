"""What trains parameters: optimizers, and the groups that parameters are trained in; import from the modules."""
