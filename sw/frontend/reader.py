"""From a file's bytes to a :class:`~xnorflow.frontend.graph.Graph`; nothing else sees protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from xnorflow.errors import UserError
from xnorflow.frontend.graph import MAX_FRAME, Graph, Node

__all__ = ["graph_of", "read_graph"]

_MAX_BYTES = 1 << 31  # protobuf's own limit of a message
_FIRST_OPSET = 7  # earlier ones broadcast in another way
_INPUT_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8, TensorProto.INT8)
_NOT_ONNX = "give a model that was exported to ONNX"


def read_graph(path: str | Path) -> Graph:
    """Read a file and check what does not depend on the operators.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Graph

    Raises
    ------
    UserError
        No readable ONNX file, not one input, a shape that is not fixed, a cycle, a tensor that
        nothing writes.
    """
    content = _read(path)
    # Damage shows as a decoding error of protobuf, or later as text that is no text.
    try:
        model = onnx.load_model_from_string(content)
    except Exception:
        raise UserError(
            f"{path}: is not an ONNX file, or is truncated or damaged; {_NOT_ONNX}"
        ) from None
    try:
        return graph_of(model, str(path))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); export it or copy it again") from None


def _read(path: str | Path) -> bytes:
    try:
        file = Path(path)
        if file.is_dir():
            raise UserError(f"{path}: is a directory; name the .onnx file in it")
        if file.stat().st_size >= _MAX_BYTES:
            raise UserError(f"{path}: is larger than the 2 GiB of an ONNX file; {_NOT_ONNX}")
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the name") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); name a readable ONNX file"
        ) from None
    except ValueError as error:
        raise UserError(f"{str(path)!r}: is no file name ({error}); check the name") from None
    if not content:
        raise UserError(f"{path}: is empty; {_NOT_ONNX}")
    return content


def graph_of(model: onnx.ModelProto, path: str) -> Graph:
    """Return the graph of a decoded model; parameters and errors as :func:`read_graph`."""
    if not model.HasField("graph") or not model.graph.output:
        raise UserError(f"{path}: is not an ONNX file, or is truncated; {_NOT_ONNX}")
    graph = model.graph
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    version = max(versions, default=0)
    if version < _FIRST_OPSET:
        state = f"uses operator set {version}" if versions else "names no standard operator set"
        raise UserError(f"{path}: {state}; export the model with operator set 7 or later")
    if graph.sparse_initializer:
        raise UserError(f"{path}: holds sparse initializers; export the model with dense ones")

    initializers = {_text(tensor.name): tensor for tensor in graph.initializer}
    if len(initializers) < len(graph.initializer):
        raise UserError(f"{path}: gives two initializers one name; export the model again")
    inputs = [value for value in graph.input if _text(value.name) not in initializers]
    if len(inputs) != 1:
        names = ", ".join(repr(value.name) for value in inputs) or "none"
        raise UserError(
            f"{path}: has {len(inputs)} inputs ({names}); give a network with exactly one"
        )
    (value,) = inputs
    batch, shape = _input_shape(value, path)
    nodes = _sorted([_node(proto) for proto in graph.node], {value.name, *initializers}, path)
    return Graph(
        path=path,
        folder=str(Path(path).parent),
        version=version,
        input=value.name,
        input_type=value.type.tensor_type.elem_type,
        batch=batch,
        input_shape=shape,
        outputs=tuple(_text(output.name) for output in graph.output),
        nodes=nodes,
        initializers=initializers,
        shapes=_shapes(graph),
    )


def _node(proto: onnx.NodeProto) -> Node:
    outputs = tuple(map(_text, proto.output))
    return Node(
        name=_text(proto.name) or next((output for output in outputs if output), ""),
        named=bool(proto.name),
        kind=_text(proto.op_type),
        domain=_text(proto.domain),
        inputs=tuple(map(_text, proto.input)),
        outputs=outputs,
        attributes={_text(a.name): helper.get_attribute_value(a) for a in proto.attribute},
    )


def _text(value: str | bytes) -> str:
    """Return a string field, which protobuf gives as bytes where it is not UTF-8."""
    if isinstance(value, bytes):
        raise ValueError(f"{value!r} is not text")
    return value


def _input_shape(value: onnx.ValueInfoProto, path: str) -> tuple[int | None, tuple[int, ...]]:
    """Return the batch size (None if free) and one frame's shape."""
    where = f"{path}: input {value.name!r}"
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise UserError(f"{where} has no shape; export the model with the shape of its input")
    tensor = value.type.tensor_type
    if tensor.elem_type not in _INPUT_TYPES:
        raise UserError(
            f"{where} has element type {_type_name(tensor.elem_type)}; "
            f"give FLOAT, DOUBLE, UINT8 or INT8"
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if len(sizes) < 2:
        raise UserError(
            f"{where} has {len(sizes)} dimensions; give a batch dimension and then the frame's, "
            f"such as (N, 784)"
        )
    batch, *frame = sizes
    shape = tuple(size for size in frame if size is not None and size > 0)
    if len(shape) < len(frame):
        got = tuple("?" if size is None else size for size in sizes)
        raise UserError(
            f"{where} has shape ({', '.join(map(str, got))}); "
            f"fix every dimension but the first when exporting"
        )
    if prod(shape) > MAX_FRAME:
        raise UserError(f"{where} has {prod(shape)} values a frame; at most {MAX_FRAME} are legal")
    return (batch if batch is not None and batch > 0 else None), shape


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return one frame's shape at every tensor that has a complete one in the file."""
    shapes = {}
    for value in (*graph.value_info, *graph.output):
        frame = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        if frame and min(frame) > 0 and prod(frame) <= MAX_FRAME:
            shapes[_text(value.name)] = tuple(frame)
    return shapes


def _type_name(number: int) -> str:
    known = dict(zip(TensorProto.DataType.values(), TensorProto.DataType.keys(), strict=True))
    return str(known.get(number, number))


def _sorted(nodes: Sequence[Node], given: set[str], path: str) -> tuple[Node, ...]:
    """Sort topologically (Kahn, 1962), keeping the file's order where it is one."""
    written = set(given)
    for node in nodes:
        for output in filter(None, node.outputs):
            if output in written:
                raise UserError(
                    f"{path}: {node} writes tensor {output!r}, which exists already; "
                    f"give every tensor one origin"
                )
            written.add(output)
    for node in nodes:
        for tensor in filter(None, node.inputs):
            if tensor not in written:
                raise UserError(
                    f"{path}: {node} reads tensor {tensor!r}, which nothing provides; "
                    f"the file may be damaged, so export it again"
                )
    return _in_order(nodes, path)


def _in_order(nodes: Sequence[Node], path: str) -> tuple[Node, ...]:
    """Sort nodes whose tensors all exist, the earliest in the file first where several can be."""
    origin = {tensor: n for n, node in enumerate(nodes) for tensor in node.outputs if tensor}
    needs = [{origin[tensor] for tensor in node.inputs if tensor in origin} for node in nodes]
    readers: list[list[int]] = [[] for _ in nodes]
    for n, sources in enumerate(needs):
        for source in sources:
            readers[source].append(n)
    missing = [len(sources) for sources in needs]
    ready = [n for n, count in enumerate(missing) if not count]
    result = []
    while ready:
        done = heappop(ready)
        result.append(nodes[done])
        for n in readers[done]:
            missing[n] -= 1
            if not missing[n]:
                heappush(ready, n)
    if len(result) < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise UserError(
            f"{path}: {stuck} lies on a cycle; give a chain from the input to the output"
        )
    return tuple(result)
