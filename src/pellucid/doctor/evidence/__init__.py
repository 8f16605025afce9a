"""What is seen of a run beside what its layers do."""
