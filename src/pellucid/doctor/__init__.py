"""What is wrong with a training: named, proved and, where it can be, put right."""
