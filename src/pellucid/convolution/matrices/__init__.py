"""A convolution as a matrix of named weights. Import from the modules."""
