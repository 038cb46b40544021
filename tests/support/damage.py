"""Damage to model files: of their bytes, and of what ONNX and Keras files hold."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import onnx
from hypothesis import strategies as st
from onnx import TensorProto

__all__ = ["Files", "damaged_bytes", "damaged_keras", "damaged_model"]


class Files(tuple[bytes, ...]):
    """Contents of files, which hypothesis is not to print."""

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


_NUMBERS = (0, 1, -1, 2, 3, 7, 127, 255, -128, 1 << 15, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, 3.4e38, float("inf"), float("nan"))
_KINDS = (
    *("Add", "ArgMax", "AveragePool", "BatchNormalization", "BipolarQuant", "Cast", "Clip"),
    *("Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Div", "Expand"),
    *("Flatten", "Gather", "Gemm", "GlobalAveragePool", "Greater", "Identity", "If", "Loop"),
    *("MatMul", "MaxPool", "Mul", "MultiThreshold", "Neg", "Pad", "Pow", "Quant", "Relu"),
    *("Reshape", "Scan", "Shape", "Sign", "Slice", "Softmax", "Squeeze", "Sub", "Tanh", "Tile"),
    *("TopK", "Transpose", "Trunc", "Unsqueeze", "Where", "", "\x00"),
)
_TEXTS = ("", "x", "NaN", "\x00", "a" * 300, "../../etc/passwd", "SAME_UPPER", "reflect", "é")


@st.composite
def damaged_bytes(draw: st.DrawFn, contents: Files) -> bytes:
    """Draw one of `contents` with some of its bytes changed, lost, repeated or swapped."""
    content = bytearray(contents[_pick(draw, contents)])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        size = draw(st.integers(1, 64))
        match draw(st.sampled_from(["flip", "byte", "cut", "drop", "insert", "repeat", "move"])):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if content:
                content[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
            case "cut":
                del content[at:]
            case "drop":
                del content[at : at + size]
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "repeat":
                content[at:at] = content[at : at + size]
            case "move":
                piece = content[at : at + size]
                del content[at : at + size]
                to = draw(st.integers(0, len(content)))
                content[to:to] = piece
    return bytes(content)


@st.composite
def damaged_model(draw: st.DrawFn, contents: Files) -> bytes:
    """Draw one of the ONNX files `contents` with some of its fields changed."""
    model = onnx.load_model_from_string(contents[_pick(draw, contents)])
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from([_change_node, _change_tensor, _change_graph]))(draw, model.graph)
    return model.SerializeToString()


def _pick(draw: st.DrawFn, items: Sequence) -> int:
    return draw(st.integers(0, len(items) - 1))


def _tensors(graph: onnx.GraphProto) -> list[str]:
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    return [*names, *(name for node in graph.node for name in node.output), "", "none"]


def _change_node(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    if not graph.node:
        return
    node = graph.node[_pick(draw, graph.node)]
    match draw(st.sampled_from(["kind", "read", "write", "forget", "copy", "drop", "attribute"])):
        case "kind":
            node.op_type = draw(st.sampled_from(_KINDS))
            if draw(st.booleans()):
                node.domain = draw(st.sampled_from(["", "qonnx.custom_op.general", "com.other"]))
        case "read" if node.input:
            node.input[_pick(draw, node.input)] = draw(st.sampled_from(_tensors(graph)))
        case "write" if node.output:
            node.output[_pick(draw, node.output)] = draw(st.sampled_from(_tensors(graph)))
        case "forget" if node.input:
            del node.input[-1]
        case "copy":
            graph.node.add().CopyFrom(node)
        case "drop":
            graph.node.remove(node)
        case "attribute" if node.attribute:
            _change_attribute(draw, node.attribute[_pick(draw, node.attribute)])


def _change_attribute(draw: st.DrawFn, attribute: onnx.AttributeProto) -> None:
    match draw(st.sampled_from(["int", "ints", "float", "text", "type", "name"])):
        case "int":
            attribute.i = draw(st.sampled_from(_NUMBERS))
        case "ints":
            del attribute.ints[draw(st.integers(0, len(attribute.ints))) :]
            attribute.ints.extend(draw(st.lists(st.sampled_from(_NUMBERS), max_size=4)))
        case "float":
            attribute.f = draw(st.sampled_from(_FLOATS))
        case "text":
            attribute.s = draw(st.sampled_from(_TEXTS)).encode()
        case "type":
            attribute.type = draw(st.sampled_from(onnx.AttributeProto.AttributeType.values()))
        case "name":
            attribute.name = draw(st.sampled_from(_TEXTS))


def _change_tensor(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    if not graph.initializer:
        return
    tensor = graph.initializer[_pick(draw, graph.initializer)]
    match draw(st.sampled_from(["size", "rank", "type", "raw", "name", "external", "value"])):
        case "size" if tensor.dims:
            tensor.dims[_pick(draw, tensor.dims)] = draw(st.sampled_from(_NUMBERS))
        case "rank":
            tensor.dims.append(draw(st.sampled_from(_NUMBERS)))
        case "type":
            tensor.data_type = draw(st.sampled_from(TensorProto.DataType.values()))
        case "raw":
            tensor.raw_data = tensor.raw_data[: draw(st.integers(0, 16))]
        case "name":
            tensor.name = draw(st.sampled_from(_tensors(graph)))
        case "external":
            tensor.data_location = TensorProto.EXTERNAL
            for key, text in (("location", "net.onnx"), ("offset", "8"), ("length", str(1 << 50))):
                if draw(st.booleans()):
                    value = draw(st.sampled_from([text, *_TEXTS]))
                    tensor.external_data.add(key=key, value=value)
        case "value" if tensor.raw_data:
            values = bytearray(tensor.raw_data)
            values[_pick(draw, values)] ^= 1 << draw(st.integers(0, 7))
            tensor.raw_data = bytes(values)


def _change_graph(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    sizes = [
        size for value in (*graph.input, *graph.output) for size in value.type.tensor_type.shape.dim
    ]
    match draw(st.sampled_from(["size", "type", "input", "output"])):
        case "size" if sizes:
            sizes[_pick(draw, sizes)].dim_value = draw(st.sampled_from(_NUMBERS))
        case "type" if graph.input:
            kind = draw(st.sampled_from(TensorProto.DataType.values()))
            graph.input[0].type.tensor_type.elem_type = kind
        case "input" if graph.input:
            graph.input[0].name = draw(st.sampled_from(_tensors(graph)))
        case "output" if graph.output:
            graph.output[0].name = draw(st.sampled_from(_tensors(graph)))


_VALUES = (
    *(None, True, False, *_NUMBERS, 1e308, -0.5, float("nan"), *_TEXTS),
    *([], {}, [[[]]], [1, 2], [3, 3, 3], [None, 1 << 40], {"class_name": "Lambda", "config": {}}),
    *(
        "same",
        "valid",
        "causal",
        "ste_sign",
        "dorefa_quantizer",
        "relu",
        "softmax",
        "channels_first",
    ),
    *("Lambda", "QuantDense", "QuantConv2D", "Flatten", "LSTM", "Concatenate", "InputLayer"),
)


@st.composite
def damaged_keras(draw: st.DrawFn, contents: Files) -> bytes:
    """Draw one of the ``.keras`` files `contents` with some of its configuration changed."""
    with zipfile.ZipFile(io.BytesIO(contents[_pick(draw, contents)])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(config))
        if not places:
            break
        parent, key = places[_pick(draw, places)]
        match draw(st.sampled_from(["value", "drop", "copy", "other"])):
            case "value":
                parent[key] = deepcopy(_VALUES[_pick(draw, _VALUES)])
            case "drop":
                del parent[key]
            case "copy" if isinstance(parent, list):
                parent.append(deepcopy(parent[key]))
            case "other":
                source, name = places[_pick(draw, places)]
                parent[key] = deepcopy(source[name])
    members["config.json"] = json.dumps(config).encode()
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key in nested JSON."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
