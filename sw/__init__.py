"""xnorflow: from a trained binarized neural network to a verified streaming FPGA accelerator."""

from typing import TYPE_CHECKING, Any

from xnorflow.errors import UserError, WorkFailed

if TYPE_CHECKING:
    from xnorflow.api import build, load, predict, simulate

__all__ = ["UserError", "WorkFailed", "__version__", "build", "load", "predict", "simulate"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API when it is first used: parts of the package need no ONNX and no Amaranth."""
    if name in ("build", "load", "predict", "simulate"):
        from xnorflow import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
