"""Engines that run a core on real frames."""
