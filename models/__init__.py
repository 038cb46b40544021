"""Trained networks that ship with the package, as QONNX files."""
