"""Larq's quantizers and Keras' activations, by the names that files have for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.keras.settings import Refused, Settings
from xnorflow.frontend.weights import NoIntegers, integer_weights

__all__ = ["BINARY", "Function", "Kernel", "binary_kernel", "function"]

BINARY = ("SteSign", "ApproxSign", "SwishSign")
"""Quantizers that give -1 below 0 and else +1; they differ in training only."""

_ALIASES = {
    "approx_sign": "ApproxSign",
    "dorefa_quantizer": "DoReFa",
    "DoReFaQuantizer": "DoReFa",
    "magnitude_aware_sign": "MagnitudeAwareSign",
    "no_op": "NoOp",
    "NoOpQuantizer": "NoOp",
    "ste_heaviside": "SteHeaviside",
    "ste_sign": "SteSign",
    "ste_tern": "SteTern",
    "swish_sign": "SwishSign",
}
_USE = 'give the layer {key}="ste_sign"'


@dataclass(frozen=True, eq=False)
class Function:
    """A quantizer or activation.

    Attributes
    ----------
    name : str
        Larq's class, or Keras' name of the function, such as ``relu``.
    settings : Settings
    """

    name: str
    settings: Settings


def function(value: Any) -> Function | None:
    """Return what a setting names, None for nothing (None, ``linear`` and ``NoOp``)."""
    settings: Any = {}
    if isinstance(value, dict):
        value, settings = value.get("class_name"), value.get("config")
        if value == "function":
            value = settings
    if value is None:
        return None
    if not isinstance(value, str):
        raise Refused("has a quantizer or activation without a name")
    if value in ("__lambda__", "<lambda>"):
        raise Refused("computes with Python code (a lambda)", "name a quantizer or activation")
    name = value.rpartition(">")[2]
    name = _ALIASES.get(name, name)
    if name in ("linear", "NoOp"):
        return None
    return Function(name, Settings(settings if isinstance(settings, dict) else {}))


@dataclass(frozen=True, eq=False)
class Kernel:
    """A layer's stored kernel.

    Attributes
    ----------
    values : ndarray
        Outputs along the last axis.
    quantizer : Function or None
    key : str
        What the setting of the quantizer is called.
    larq : bool
        Whether the layer has such a setting.
    """

    values: NDArray
    quantizer: Function | None
    key: str
    larq: bool


def binary_kernel(kernel: Kernel) -> NDArray[np.float32]:
    """Return the kernel as it works: quantized.

    Raises
    ------
    Refused
        Its quantizer does not give two values of one magnitude for each output, or it has none
        and is not so already.
    """
    values, quantizer = kernel.values, kernel.quantizer
    if not np.all(np.isfinite(values)):
        raise Refused("has a kernel that holds NaN or infinity", "train it again")
    signs = np.where(values >= 0, np.float32(1), np.float32(-1))
    if quantizer is None:
        return _quantized_already(kernel)
    if quantizer.name in BINARY:
        return signs
    use = _USE.format(key=kernel.key)
    match quantizer.name:
        case "MagnitudeAwareSign":
            # The mean of all weights of an output; in float64, and rounded once.
            means = np.abs(values).mean(axis=tuple(range(values.ndim - 1)), dtype=np.float64)
            return signs * means.astype(np.float32)
        case "SteTern":
            raise Refused("makes its weights ternary by SteTern, which is not supported", use)
        case "DoReFa":
            bits = quantizer.settings.integer("k_bit", 2)
            raise Refused(f"quantizes its weights to {bits} bits by DoReFa", use)
        case "SteHeaviside":
            raise Refused("has weights of 0 and 1, and one-bit weights are -1 and +1", use)
    raise Refused(f"has the {kernel.key} {quantizer.name!r}, which is not known", use)


def _quantized_already(kernel: Kernel) -> NDArray[np.float32]:
    values = kernel.values.reshape(-1, kernel.values.shape[-1]).T
    try:
        integer_weights(values)
    except NoIntegers as refusal:
        found = np.unique(values[refusal.row])
        shown = ", ".join(f"{value:g}" for value in found[:4]) + (", ..." if found.size > 4 else "")
        use = _USE.format(key=kernel.key) if kernel.larq else "use the Quant layers of Larq"
        raise Refused(
            f"has a kernel that is neither binary nor integers of up to 8 bits times one scale for "
            f"each output (output {refusal.row} has {shown})",
            use,
        ) from None
    single = kernel.values.astype(np.float32)
    if not np.array_equal(single, kernel.values):
        raise Refused("has a kernel that float32 cannot hold", "save the model in float32")
    return single
