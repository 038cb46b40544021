"""Keras and Larq models as their files hold them, and what they compute, without TensorFlow.

A :class:`KerasModel` collects layers as TensorFlow's Keras 2, Larq 0.14 and Keras 3 write them, and
evaluates them in float64 as Keras defines them, channels last. It shares no code with the reader,
but for `read_here`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xnorflow.frontend.keras import hdf5_worker
from xnorflow.frontend.keras.hdf5 import Hdf5

__all__ = ["FORMS", "KerasModel", "read_here", "save_h5", "save_parts"]

FORMS = ("keras", "keras functional", "keras 3", "keras 3 functional", "h5", "h5 functional")
"""Files that `KerasModel.save` writes."""

_STORED_AS = {
    "ActivityRegularization": "activity_regularization",
    "AveragePooling2D": "average_pooling2d",
    "BatchNormalization": "batch_normalization",
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "GlobalAveragePooling2D": "global_average_pooling2d",
    "GlobalMaxPooling2D": "global_max_pooling2d",
    "MaxPooling2D": "max_pooling2d",
    "QuantConv2D": "quant_conv2d",
    "QuantDense": "quant_dense",
    "QuantDepthwiseConv2D": "quant_depthwise_conv2d",
    "QuantSeparableConv2D": "quant_separable_conv2d",
    "SteSign": "ste_sign",
    "ZeroPadding2D": "zero_padding2d",
}
_LARQ = ("Quant", "Ste", "Approx", "Swish", "Magnitude", "DoReFa", "NoOp")


def _quantizer(name: str | None, form: str, **settings: object) -> Any:
    """Return a quantizer as files have it: the class with its settings, or an alias."""
    if name is None or form == "alias":
        return name
    entry = {"class_name": name, "config": {"name": name.lower(), "trainable": True, **settings}}
    if form == "object":
        entry |= {"module": "larq.quantizers", "registered_name": name}
    return entry


_ALIAS = {
    "SteSign": "ste_sign",
    "ApproxSign": "approx_sign",
    "SwishSign": "swish_sign",
    "MagnitudeAwareSign": "magnitude_aware_sign",
    "SteHeaviside": "ste_heaviside",
    "DoReFa": "dorefa_quantizer",
}


class KerasModel:
    """A model under construction.

    Parameters
    ----------
    input_shape : sequence of int
        Of a frame.
    seed : int
    quantizers : str
        How quantizers are written: ``object`` (with its module), ``legacy`` or ``alias``.

    Attributes
    ----------
    layers : list of (kind, config, weights)
        Weights are (name, array), trainable ones first.
    """

    def __init__(
        self, input_shape: Sequence[int], seed: int = 0, quantizers: str = "object"
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.input_shape = self.shape = tuple(input_shape)
        self.quantizers = quantizers
        self.layers: list[tuple[str, dict[str, Any], list[tuple[str, NDArray]]]] = []
        self.shapes: list[tuple[int, ...]] = []
        self._functions: list[Callable[[NDArray], NDArray]] = []
        self._names: Counter[str] = Counter()

    def predict(self, x: NDArray) -> NDArray:
        """Return the outputs for frames (N, *input_shape)."""
        y = np.asarray(x, np.float64)
        for function in self._functions:
            y = function(y)
        return y

    def add(
        self,
        kind: str,
        config: dict[str, Any],
        function: Callable[[NDArray], NDArray],
        weights: Sequence[tuple[str, NDArray]] = (),
        name: str = "",
    ) -> KerasModel:
        """Append a layer with what it computes."""
        if not name:
            stem = _STORED_AS.get(kind, kind.lower())
            number = self._names[stem]
            self._names[stem] += 1
            name = f"{stem}_{number}" if number else stem
        config = {"name": name, "trainable": True, "dtype": "float32", **config}
        self.layers.append((kind, config, list(weights)))
        self.shapes.append(self.shape)
        self._functions.append(function)
        probe = function(np.zeros((1, *self.shape)))
        self.shape = probe.shape[1:]
        return self

    # What layers compute

    def _quantized(self, what: str | None, settings: dict[str, Any]) -> Callable:
        if what is None:
            return lambda x: x
        bits = (1 << settings.get("k_bit", 2)) - 1
        return {
            "SteSign": lambda x: np.where(x >= 0, 1.0, -1.0),
            "ApproxSign": lambda x: np.where(x >= 0, 1.0, -1.0),
            "SwishSign": lambda x: np.where(x >= 0, 1.0, -1.0),
            "SteHeaviside": lambda x: np.where(x > 0, 1.0, 0.0),
            "DoReFa": lambda x: np.rint(np.clip(x, 0, 1) * bits) / bits,
        }[what]

    def _kernel(self, values: NDArray, quantizer: str | None) -> NDArray:
        signs = np.where(values >= 0, 1.0, -1.0)
        if quantizer is None:
            return values.astype(np.float64)
        if quantizer == "MagnitudeAwareSign":
            axes = tuple(range(values.ndim - 1))
            return signs * np.float32(np.abs(values.astype(np.float64)).mean(axis=axes))
        return signs

    def _written(self, quantizer: str | None, **settings: Any) -> Any:
        if self.quantizers == "alias" and not settings and quantizer in _ALIAS:
            return _ALIAS[quantizer]
        form = "object" if self.quantizers == "alias" else self.quantizers
        return _quantizer(quantizer, form, **settings)

    def _latent(self, *shape: int) -> NDArray[np.float32]:
        values = self.rng.uniform(-1, 1, shape).astype(np.float32)
        values.flat[0] = 0
        return values

    def _bias(self, count: int, use: bool) -> list[tuple[str, NDArray]]:
        return [("bias", self.rng.normal(0, 1, count).astype(np.float32))] if use else []

    # Layers

    def dense(
        self,
        units: int,
        *,
        quantizer: str | None = "SteSign",
        kernel: str | None = "SteSign",
        bias: bool = False,
        kind: str = "QuantDense",
        activation: Any = "linear",
        values: NDArray | None = None,
        settings: dict[str, Any] | None = None,
        name: str = "",
    ) -> KerasModel:
        """Append a dense layer."""
        values = self._latent(self.shape[-1], units) if values is None else values
        weights = [("kernel", values), *self._bias(units, bias)]
        settings = settings or {}
        config = {"units": units, "activation": activation, "use_bias": bias}
        if kind == "QuantDense":
            config["input_quantizer"] = self._written(quantizer, **settings)
            config["kernel_quantizer"] = self._written(kernel)
        else:
            quantizer = kernel = None
        matrix, before = self._kernel(values, kernel), self._quantized(quantizer, settings)
        offset = weights[1][1].astype(np.float64) if bias else 0.0
        after = self._quantized("SteSign" if activation != "linear" else None, {})
        function = lambda x: after(before(x) @ matrix + offset)  # noqa: E731
        return self.add(kind, config, function, weights, name)

    def conv(
        self,
        filters: int,
        size: int | Sequence[int] = 3,
        *,
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        pad_values: float = 0.0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        quantizer: str | None = "SteSign",
        kernel: str | None = "SteSign",
        bias: bool = False,
        kind: str = "QuantConv2D",
        multiplier: int = 1,
        values: NDArray | None = None,
        settings: dict[str, Any] | None = None,
        name: str = "",
    ) -> KerasModel:
        """Append a convolution; of depthwise and separable ones `kernel` quantizes all parts."""
        channels = self.shape[-1]
        (kh, kw), stride, rate = (
            (n, n) if isinstance(n, int) else tuple(n) for n in (size, strides, dilation)
        )
        depthwise, separable = "Depthwise" in kind, "Separable" in kind
        config: dict[str, Any] = {
            "kernel_size": [kh, kw],
            "strides": list(stride),
            "padding": padding,
            "data_format": "channels_last",
            "dilation_rate": list(rate),
            "groups": groups,
            "activation": "linear",
            "use_bias": bias,
        }
        settings = settings or {}
        if kind.startswith("Quant"):
            config["input_quantizer"] = self._written(quantizer, **settings)
            config["pad_values"] = pad_values
        else:
            quantizer = kernel = None
        if depthwise or separable:
            config["depth_multiplier"] = multiplier
            first = self._latent(kh, kw, channels, multiplier) if values is None else values
            weights = [("depthwise_kernel", first)]
            matrix = np.zeros((kh, kw, channels, channels * multiplier))
            for c in range(channels):
                for m in range(multiplier):
                    part = self._kernel(first, kernel)[:, :, c, m]
                    matrix[:, :, c, c * multiplier + m] = part
            filters = filters if separable else channels * multiplier
            if kind.startswith("Quant"):
                config["depthwise_quantizer"] = self._written(kernel)
        else:
            latent = self._latent(kh, kw, channels // groups, filters)
            latent = latent if values is None else values
            weights = [("kernel", latent)]
            matrix = np.zeros((kh, kw, channels, filters))
            size_in, size_out = channels // groups, filters // groups
            for g in range(groups):
                rows, columns = (slice(g * n, (g + 1) * n) for n in (size_in, size_out))
                part = self._kernel(latent, kernel)[:, :, :, columns]
                matrix[:, :, rows, columns] = part
            if kind.startswith("Quant"):
                config["kernel_quantizer"] = self._written(kernel)
        if not depthwise:
            config["filters"] = filters
        if separable:
            second = self._latent(1, 1, matrix.shape[-1], filters)
            weights.append(("pointwise_kernel", second))
            matrix = matrix @ self._kernel(second, kernel)[0, 0]
            if kind.startswith("Quant"):
                config["pointwise_quantizer"] = self._written(kernel)
        weights += self._bias(filters, bias)
        offset = weights[-1][1].astype(np.float64) if bias else 0.0
        before, value = self._quantized(quantizer, settings), pad_values

        def function(x: NDArray) -> NDArray:
            x = _around(before(x), (kh, kw), stride, rate, padding, value)
            rows = (x.shape[1] - rate[0] * (kh - 1) - 1) // stride[0] + 1
            columns = (x.shape[2] - rate[1] * (kw - 1) - 1) // stride[1] + 1
            y = np.zeros((len(x), rows, columns, filters))
            for i in range(kh):
                for j in range(kw):
                    top, left = i * rate[0], j * rate[1]
                    taps = x[:, top :: stride[0], left :: stride[1]][:, :rows, :columns]
                    y += taps @ matrix[i, j]
            return y + offset

        return self.add(kind, config, function, weights, name)

    def batch_norm(
        self, *, scale: bool = True, center: bool = True, epsilon: float = 1e-3, axis: object = None
    ) -> KerasModel:
        """Append a batch norm, some of whose scales are negative."""
        rng, count = self.rng, self.shape[-1]
        gamma = (rng.uniform(0.3, 2, count) * rng.choice([-1, 1, 1], count)).astype(np.float32)
        beta, mean = (rng.normal(0, 1, count).astype(np.float32) for _ in range(2))
        variance = rng.uniform(0.2, 4, count).astype(np.float32)
        weights = [("gamma", gamma)] if scale else []
        weights += [("beta", beta)] if center else []
        weights += [("moving_mean", mean), ("moving_variance", variance)]
        axis = [len(self.shape)] if axis is None else axis
        config = {"axis": axis, "epsilon": epsilon, "center": center, "scale": scale}
        root = np.sqrt(variance.astype(np.float64) + np.float32(epsilon))

        def function(x: NDArray) -> NDArray:
            y = (x - mean) / root
            y = y * gamma if scale else y
            return y + beta if center else y

        return self.add("BatchNormalization", config, function, weights)

    def pool(
        self,
        kind: str,
        size: int | Sequence[int] = 2,
        strides: int | Sequence[int] | None = None,
        padding: str = "valid",
    ) -> KerasModel:
        """Append a pool: ``Max`` or ``Average``."""
        kernel = (size, size) if isinstance(size, int) else tuple(size)
        steps = size if strides is None else strides
        stride = (steps, steps) if isinstance(steps, int) else tuple(steps)
        config = {
            "pool_size": list(kernel),
            "strides": None if strides is None else list(stride),
            "padding": padding,
            "data_format": "channels_last",
        }
        highest = kind == "Max"

        def function(x: NDArray) -> NDArray:
            x = _around(x, kernel, stride, (1, 1), padding, -np.inf)
            windows = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))
            windows = windows[:, :: stride[0], :: stride[1]]
            return windows.max(axis=(-2, -1)) if highest else windows.mean(axis=(-2, -1))

        return self.add(f"{kind}Pooling2D", config, function)

    def global_pool(self, kind: str = "Average", keepdims: bool = False) -> KerasModel:
        """Append a pool over whole images."""
        config = {"data_format": "channels_last", "keepdims": keepdims}
        reduce = np.mean if kind == "Average" else np.max
        function = lambda x: reduce(x, axis=(1, 2), keepdims=keepdims)  # noqa: E731
        return self.add(f"Global{kind}Pooling2D", config, function)

    def flatten(self) -> KerasModel:
        """Append a flatten."""
        config = {"data_format": "channels_last"}
        return self.add("Flatten", config, lambda x: x.reshape(len(x), -1))

    def reshape(self, *shape: int) -> KerasModel:
        """Append a reshape."""
        config = {"target_shape": list(shape)}
        return self.add("Reshape", config, lambda x: x.reshape(len(x), *shape))

    def zero_padding(self, top: int, bottom: int, left: int, right: int) -> KerasModel:
        """Append rows and columns of zeros."""
        config = {"padding": [[top, bottom], [left, right]], "data_format": "channels_last"}
        widths = ((0, 0), (top, bottom), (left, right), (0, 0))
        return self.add("ZeroPadding2D", config, lambda x: np.pad(x, widths))

    def rescaling(self, scale: float, offset: float = 0.0) -> KerasModel:
        """Append arithmetic on the pixels."""
        config = {"scale": scale, "offset": offset}
        return self.add("Rescaling", config, lambda x: x * scale + offset)

    def activation(self, what: Any, function: Callable[[NDArray], NDArray]) -> KerasModel:
        """Append an activation as a layer."""
        return self.add("Activation", {"activation": what}, function)

    def sign(self, quantizer: str = "SteSign") -> KerasModel:
        """Append a quantizer as an activation."""
        return self.activation(self._written(quantizer), self._quantized(quantizer, {}))

    def other(self, kind: str, **config: Any) -> KerasModel:
        """Append a layer that changes nothing, or of which only the name matters."""
        return self.add(kind, config, lambda x: x)

    # Files

    def save(self, path: Path, form: str = "keras", nest: tuple[int, int] | None = None) -> Path:
        """Write a file in one of `FORMS`; return its path with the suffix.

        Parameters
        ----------
        path : Path
        form : str
        nest : tuple of int, optional
            Which layers, from the first to before the last, are a Sequential in the model.
        """
        config = self.config(form, nest)
        first, last = nest or (0, 0)
        if form.startswith("h5"):
            inner: list[tuple[str, NDArray]] = []
            weights: list[tuple[str, list[tuple[str, NDArray]]]] = []
            for index, (_, settings, arrays) in enumerate(self.layers):
                name = settings["name"]
                named = [(f"{name}/{role}:0", array) for role, array in arrays]
                if index in range(first, last):
                    inner += named
                else:
                    weights.append((name, named))
            # Trainable variables of all its layers come before the others.
            inner.sort(key=lambda one: "moving" in one[0])
            if nest:
                weights.append(("features", inner))
            return save_h5(path.with_suffix(".h5"), config, weights)
        counts: Counter[str] = Counter()
        parts = {}
        for index, (kind, _, arrays) in enumerate(self.layers):
            top = "layers/sequential/layers" if index in range(first, last) else "layers"
            stem = f"{top}/{_STORED_AS.get(kind, kind.lower())}"
            place = f"{stem}_{counts[stem]}" if counts[stem] else stem
            counts[stem] += 1
            parts[place] = [array for _, array in arrays]
        return save_parts(path.with_suffix(".keras"), config, parts)

    def config(self, form: str = "keras", nest: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return the configuration as JSON has it; parameters as `save`."""
        third = "keras 3" in form
        key = "batch_shape" if third else "batch_input_shape"
        source = {key: [None, *self.input_shape], "dtype": "float32", "name": "input_1"}
        entries = [self._entry("InputLayer", source, None, form)]
        for (kind, config, _), shape in zip(self.layers, self.shapes, strict=True):
            entries.append(self._entry(kind, config, shape, form))
        names = ["input_1", *(config["name"] for _, config, _ in self.layers)]
        if nest is not None:
            inside = slice(nest[0] + 1, nest[1] + 1)
            inner = self._entry(
                "Sequential", {"name": "features", "layers": entries[inside]}, None, form
            )
            entries[inside], names[inside] = [inner], ["features"]
        config = {"name": "model", "trainable": True, "layers": entries}
        kind = "Sequential"
        if "functional" in form:
            kind = "Functional"
            entries[0] |= {"name": "input_1", "inbound_nodes": []}
            for before, entry, name in zip(names, entries[1:], names[1:], strict=False):
                # Building a Sequential counts as its first call.
                call = _call(before, third, int(before == "features"))
                entry |= {"name": name, "inbound_nodes": [call]}
            config["input_layers"] = [["input_1", 0, 0]]
            config["output_layers"] = [[names[-1], 0, 0]]
            # Files list layers in another order than that of the data.
            config["layers"] = [entries[0], *_shuffled_within_kinds(entries[1:])]
        entry: dict[str, Any] = {"class_name": kind, "config": config}
        if not form.startswith("h5"):
            entry |= {"module": "keras", "registered_name": kind}
            entry["build_config"] = {"input_shape": [None, *self.input_shape]}
        return entry

    def _entry(
        self, kind: str, config: dict[str, Any], shape: tuple[int, ...] | None, form: str
    ) -> dict[str, Any]:
        entry: dict[str, Any] = {"class_name": kind, "config": config}
        if not form.startswith("h5"):
            larq = kind.startswith(_LARQ)
            entry["module"] = "larq.layers" if larq else "keras.layers"
            entry["registered_name"] = kind if larq else None
            if shape is not None:
                entry["build_config"] = {"input_shape": [None, *shape]}
        return entry


def read_here(path: str, file: IO[bytes], groups: tuple[str, ...]) -> Hdf5:
    """Read HDF5 in this process: `xnorflow.frontend.keras.hdf5.read_hdf5` for many files."""
    file.seek(0)
    header, arrays = hdf5_worker.read(file.read(), 1 << 30, groups)
    names = [name for name, *_ in header["arrays"]]
    return Hdf5(header["attributes"], dict(zip(names, arrays, strict=True)))


def _shuffled_within_kinds(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries in another order, in which those of one class keep theirs."""
    return sorted(entries, key=lambda entry: entry["class_name"])


def _call(name: str, third: bool, number: int) -> Any:
    if not third:
        return [[name, number, 0, {"training": False}]]
    tensor = {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 1], "dtype": "float32", "keras_history": [name, number, 0]},
    }
    return {"args": [tensor], "kwargs": {"training": False}}


def _around(
    x: NDArray,
    kernel: Sequence[int],
    stride: Sequence[int],
    rate: Sequence[int],
    padding: str,
    value: float,
) -> NDArray:
    """Pad as TensorFlow does for ``padding="same"``."""
    if padding == "valid":
        return x
    widths = [(0, 0)]
    for size, k, s, d in zip(x.shape[1:3], kernel, stride, rate, strict=True):
        extent = (k - 1) * d + 1
        total = max(extent - s if size % s == 0 else extent - size % s, 0)
        widths.append((total // 2, total - total // 2))
    return np.pad(x, (*widths, (0, 0)), constant_values=value)


def save_parts(
    path: Path, config: object, parts: dict[str, list[NDArray]], **members: bytes
) -> Path:
    """Write a ``.keras`` file: `parts` are lists of arrays by their group."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_group("vars")
        for group, arrays in parts.items():
            place = file.create_group(group).create_group("vars")
            for index, array in enumerate(arrays):
                place[str(index)] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.19.0"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", memory.getvalue())
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def save_h5(path: Path, config: object, layers: list[tuple[str, list[tuple[str, Any]]]]) -> Path:
    """Write a ``.h5`` file: `layers` are lists of (name, array) by the layer's name."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.19.0"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [name.encode() for name, _ in layers]
        for name, arrays in layers:
            group = weights.create_group(name)
            group.attrs["weight_names"] = [part.encode() for part, _ in arrays]
            for part, array in arrays:
                group[part] = array
        file.create_group("optimizer_weights")["iteration:0"] = np.int64(3)
    return path
