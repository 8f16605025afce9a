"""`History`, the record of a training as plain arrays: schema, files and pictures; import from the modules."""
