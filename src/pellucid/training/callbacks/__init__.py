"""What may be added to the training loop; import from the modules."""
