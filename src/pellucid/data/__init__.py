"""From image files to batches on the device; import from the modules, heavy ones load only when asked for."""
