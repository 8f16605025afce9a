"""How long a child process may take before a test calls it hung."""

HUNG_S = 600  # far above what any takes on a busy machine: it ends what would wait for ever, and measures nothing
