"""The link between host and core."""
