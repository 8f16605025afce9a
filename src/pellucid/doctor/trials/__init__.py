"""Experiments on a copy of the model, which confirm a suspicion or rule it out."""
