"""What networks are made of: layers, normalisation, losses, the chapter's models; import from the modules."""
