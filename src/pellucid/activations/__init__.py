"""What every layer does while a model trains: watched in any loop, kept as plain arrays; import from the modules."""
