"""Sample frames that ship with the package."""
