"""Every picture, made from plain arrays."""
