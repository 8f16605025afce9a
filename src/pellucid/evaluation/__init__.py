"""How good a classifier is on images whose labels are known: scores, calibration, mistakes, and where to read them."""
