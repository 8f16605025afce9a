"""Receptive fields, exact: which pixels the units of a model can see. Import from the modules."""
