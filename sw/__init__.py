"""xnorflow: from a trained binarized neural network to a verified streaming FPGA accelerator."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xnorflow.frontend import load

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `load` when it is first used: hardware alone needs no ONNX."""
    if name == "load":
        from xnorflow.frontend import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
