"""Amaranth components, one idea a file."""
