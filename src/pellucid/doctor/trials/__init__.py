"""Experiments on a copy of a model with a few captured batches, which confirm a suspicion or rule it out."""
