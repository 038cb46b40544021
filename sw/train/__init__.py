"""Training recipes (needs the extra `train`)."""
