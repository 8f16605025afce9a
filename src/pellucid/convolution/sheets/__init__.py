"""A network on one image as a spreadsheet of live formulas. Import from the modules."""
