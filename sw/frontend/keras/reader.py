"""From a Keras file to a :class:`~xnorflow.frontend.graph.Graph`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from onnx import TensorProto

from xnorflow.errors import UserError
from xnorflow.frontend.graph import Graph
from xnorflow.frontend.keras.builder import Builder, Tensor
from xnorflow.frontend.keras.files import KerasFile, read_file
from xnorflow.frontend.keras.layers import Translator
from xnorflow.frontend.keras.model import Call, Layer, Model, Place, read_model
from xnorflow.frontend.keras.settings import Refused, frame_shape

__all__ = ["read_keras", "translate"]

_OPERATOR_SET = 13
_INPUT = "input"
_FLOATS = ("bfloat16", "float16", "float32", "float64")
_MERGED = "Identity"
_UNSEEN = "what lies behind it was not examined"


def read_keras(path: str | Path) -> Graph:
    """Read a Keras or Larq model, without TensorFlow.

    Parameters
    ----------
    path : str or Path
        A ``.keras`` or ``.h5`` file of a whole model.

    Returns
    -------
    Graph
        In the operators of ONNX and QONNX. Images have the channels last, as in Keras; nodes are
        named after the layers and labelled such as ``layer 'conv1' (QuantConv2D)``.

    Raises
    ------
    UserError
        The file cannot be read, is damaged or is no Sequential or functional model. Layers that
        are not supported become nodes that the walk refuses.
    """
    return translate(read_file(path))


def translate(file: KerasFile) -> Graph:
    """Turn a file's content into a graph; parameters and errors as `read_keras`."""
    return _Writer(file, read_model(file.path, file.config)).graph()


class _Writer:
    """Translates a model, and the models in it."""

    def __init__(self, file: KerasFile, model: Model) -> None:
        self.path, self.model = file.path, model
        self.builder = Builder()
        self.translator = Translator(self.builder, file.weights)
        shape = frame_shape(model.batch_shape)
        if len(model.inputs) != 1:
            raise UserError(f"{self.path}: has {len(model.inputs)} inputs; give a network with one")
        if shape is None:
            raise UserError(
                f"{self.path}: has an input of shape {str(model.batch_shape)[:40]}; give it fixed "
                f"sizes before it is saved, such as InputLayer((28, 28, 1))"
            )
        if model.dtype not in (*_FLOATS, "uint8"):
            raise UserError(
                f"{self.path}: takes frames of type {model.dtype[:40]}; give it float32 or uint8"
            )
        self.input = Tensor(self.builder.unique(_INPUT), shape)

    def graph(self) -> Graph:
        """Return the whole graph."""
        builder, model = self.builder, self.model
        layers = {call.output: call.layer for call in model.calls}
        tensors = self.outputs(model, [self.input])
        end = self.end([(layers.get(p), x) for p, x in zip(model.outputs, tensors, strict=True)])
        batch = model.batch_shape[0]
        return Graph(
            path=self.path,
            folder="",
            version=_OPERATOR_SET,
            input=self.input.name,
            input_type=TensorProto.UINT8 if model.dtype == "uint8" else TensorProto.FLOAT,
            batch=batch if isinstance(batch, int) and batch > 0 else None,
            input_shape=self.input.sizes,
            outputs=(end.name,),
            nodes=tuple(builder.nodes),
            initializers=builder.initializers,
            shapes=builder.shapes,
        )

    def end(self, outputs: list[tuple[Layer | None, Tensor]]) -> Tensor:
        """Return the tensor that the graph gives, with whatever still waits for a later layer."""
        _, x = outputs[0]
        if x.shape is None:
            nodes = self.builder.nodes
            index = next(i for i, node in enumerate(nodes) if x.name in node.outputs)
            problem, mend = nodes[index].refusal or ("", "")
            nodes[index] = replace(nodes[index], refusal=(problem, f"{mend} ({_UNSEEN})"))
            return x
        x = self.builder.padded(x)
        if len(outputs) > 1:
            for layer, _ in outputs:
                if layer is not None:
                    why = Refused(f"gives one of {len(outputs)} outputs", "give a network with one")
                    x = self.builder.refused(layer, x, why, "Identity", x.shape)
        return x

    def outputs(self, model: Model, inputs: list[Tensor]) -> list[Tensor]:
        """Append a model's layers; return its outputs."""
        known: dict[Place, Tensor] = dict(zip(model.inputs, inputs, strict=True))
        for call in model.calls:
            known[call.output] = self.called(call, [known[place] for place in call.inputs])
        return [known[place] for place in model.outputs]

    def called(self, call: Call, inputs: list[Tensor]) -> Tensor:
        layer = call.layer
        if layer.input_shape is not None and len(inputs) == 1 and inputs[0].shape is None:
            # The layer before is not supported, but this one tells what it gives.
            inputs = [replace(inputs[0], shape=layer.input_shape)]
            self.builder.tell(inputs[0])
        if any(x.shape is None for x in inputs):
            return next(x for x in inputs if x.shape is None)
        if layer.model is not None:
            return self.inner(layer, layer.model, inputs)
        if len(inputs) > 1:
            return self.merged(layer, inputs)
        result = self.translator.translate(layer, inputs[0])
        begins = layer.kind == "Reshape" and inputs[0] is self.input and result.shape is not None
        if begins and len(self.builder.nodes) == 1:
            # Frames may as well have the new shape from the start.
            self.builder.forget()
            self.input = result = replace(self.input, shape=result.shape)
        return result

    def inner(self, layer: Layer, model: Model, inputs: list[Tensor]) -> Tensor:
        if len(inputs) != 1 or len(model.inputs) != 1 or len(model.outputs) != 1:
            raise UserError(
                f"{self.path}: {layer} has several inputs or outputs; give models with one of each"
            )
        return self.outputs(model, inputs)[0]

    def merged(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        """Append a layer of several inputs; of a refused one go on with the longest way there."""
        nodes = self.builder.nodes
        places = {node.outputs[0]: index for index, node in enumerate(nodes)}
        x = max(inputs, key=lambda x: places.get(x.name, -1))
        shape = x.sizes
        if layer.kind == "Concatenate":
            shape = (*x.sizes[:-1], sum(one.sizes[-1] for one in inputs))
        try:
            return self.translator.join(layer, inputs, shape)
        except Refused as why:
            return self.builder.refused(layer, x, why, _MERGED, shape)
