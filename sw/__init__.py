"""xnorflow: from a trained binarized neural network to a verified streaming FPGA accelerator."""

__all__ = ["__version__"]

__version__ = "0.1.0"
