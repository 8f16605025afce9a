"""What made one activation: window, pixels, and a page to click through. Import from the modules."""
