"""From a model's configuration to its layers and how they are connected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xnorflow.errors import UserError
from xnorflow.frontend.keras.settings import Settings, frame_shape

__all__ = ["Call", "Layer", "Model", "Place", "read_model"]

_MAX_DEPTH = 8
_MODELS = ("Functional", "Model", "Sequential")

Place = tuple[str, int]
"""A tensor: the name of a layer and which of its calls gave it."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer.

    Attributes
    ----------
    kind : str
        Keras or Larq class.
    names : tuple of str
        Its name, behind those of the models that it is in.
    place : tuple of str
        Where ``.keras`` files keep its weights, see `Weights.of`.
    settings : Settings
        Its configuration.
    input_shape : tuple of int or None
        A frame's shape at its input, where the file says so.
    model : Model or None
        The one that it is.
    """

    kind: str
    names: tuple[str, ...]
    place: tuple[str, ...]
    settings: Settings
    input_shape: tuple[int, ...] | None
    model: Model | None = None

    @property
    def title(self) -> str:
        """Its whole name."""
        return "/".join(self.names)

    def __str__(self) -> str:
        kind = self.kind if self.kind.isprintable() else repr(self.kind)
        return f"layer {self.title!r} ({kind})"


@dataclass(frozen=True, eq=False)
class Call:
    """A layer at work.

    Attributes
    ----------
    layer : Layer
    inputs : tuple of Place
    output : Place
    """

    layer: Layer
    inputs: tuple[Place, ...]
    output: Place


@dataclass(frozen=True, eq=False)
class Model:
    """Layers in an order in which they can be computed.

    Attributes
    ----------
    calls : tuple of Call
    inputs, outputs : tuple of Place
    batch_shape : Any
        Shape of the first input with the batch first, as in the file; None where it tells none.
    dtype : str
        Of the input.
    """

    calls: tuple[Call, ...]
    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]
    batch_shape: Any
    dtype: str


def read_model(path: str, entry: Mapping[str, Any]) -> Model:
    """Read a model.

    Parameters
    ----------
    path : str
        For messages.
    entry : mapping of str to Any
        The whole configuration, with ``class_name`` and ``config``.

    Raises
    ------
    UserError
        The configuration is none of a Sequential or functional model.
    """
    return _Reader(path).model(entry, (), ())


class _Reader:
    """Reads models and the models in them."""

    def __init__(self, path: str) -> None:
        self.path = path

    def fail(self, what: str) -> UserError:
        return UserError(f"{self.path}: {what}; save the model again with model.save")

    def model(
        self, entry: Mapping[str, Any], names: tuple[str, ...], place: tuple[str, ...]
    ) -> Model:
        kind, config = entry.get("class_name"), entry.get("config")
        if kind not in _MODELS:
            shown = repr(kind)[:40]
            raise UserError(
                f"{self.path}: holds a {shown}, which is no Sequential or functional model; build "
                f"the model from layers, without a class of its own"
            )
        if len(names) > _MAX_DEPTH:
            raise self.fail(f"holds models more than {_MAX_DEPTH} deep in each other")
        # Before Keras 2.3 the layers of a Sequential were all of its configuration.
        config = {"layers": config} if isinstance(config, list) else config
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            raise self.fail(f"holds a {kind} without a list of layers")
        entries = config["layers"]
        if not all(isinstance(item, dict) for item in entries):
            raise self.fail(f"holds a {kind} with layers that are no objects")
        numbers: Counter[str] = Counter()
        layers = [self.layer(item, names, place, numbers) for item in entries]
        if kind == "Sequential":
            return self.sequential(layers, entries, [config, entry])
        return self.functional(layers, entries, config)

    def layer(
        self,
        entry: Mapping[str, Any],
        names: tuple[str, ...],
        place: tuple[str, ...],
        numbers: Counter[str],
    ) -> Layer:
        kind, config = entry.get("class_name"), entry.get("config", {})
        if not isinstance(kind, str) or not kind:
            raise self.fail("holds a layer without a class")
        kind = kind.rpartition(">")[2]
        settings = config if isinstance(config, dict) else {}
        name = entry.get("name", settings.get("name"))
        name = name if isinstance(name, str) and name else kind.lower()
        # Weights lie under the class and its number, whatever a layer is called.
        stem = _snake_case(kind)
        number = numbers[stem]
        numbers[stem] += 1
        names = (*names, name)
        place = (*place, f"{stem}_{number}" if number else stem)
        build = entry.get("build_config")
        shape = build.get("input_shape") if isinstance(build, dict) else None
        model = self.model(entry, names, place) if kind in _MODELS else None
        return Layer(kind, names, place, Settings(settings), frame_shape(shape), model)

    def sequential(
        self,
        layers: Sequence[Layer],
        entries: Sequence[Mapping[str, Any]],
        owners: Sequence[Mapping[str, Any]],
    ) -> Model:
        calls: list[Call] = []
        at = begin = ("", 0)
        for index, layer in enumerate(layers):
            if layer.kind == "InputLayer":
                continue
            output = (layer.names[-1], index + 1)
            calls.append(Call(layer, (at,), output))
            at = output
        shape, dtype = None, "float32"
        if layers:
            shape, dtype = _input(layers[0])
        for owner in owners:
            build = owner.get("build_config")
            others = [owner.get("build_input_shape")]
            others += [build.get("input_shape")] if isinstance(build, dict) else []
            shape = next((other for other in (shape, *others) if other is not None), None)
        return Model(tuple(calls), (begin,), (at,), shape, dtype)

    def functional(
        self,
        layers: Sequence[Layer],
        entries: Sequence[Mapping[str, Any]],
        config: Mapping[str, Any],
    ) -> Model:
        by_name = {layer.names[-1]: layer for layer in layers}
        if len(by_name) < len(layers):
            raise self.fail("gives two layers one name")
        waiting: list[Call] = []
        for layer, entry in zip(layers, entries, strict=True):
            if layer.kind == "InputLayer":
                continue
            nodes = entry.get("inbound_nodes")
            if not isinstance(nodes, list) or not nodes:
                raise self.fail(f"does not tell what {layer} takes")
            for index, node in enumerate(nodes):
                inputs = tuple(_inputs(node))
                if not inputs:
                    raise self.fail(f"does not tell what {layer} takes")
                waiting.append(Call(layer, inputs, (layer.names[-1], index)))
        inputs, outputs = (
            self.ends(config.get(key), by_name) for key in ("input_layers", "output_layers")
        )
        source = by_name[inputs[0][0]]
        shape, dtype = _input(source)
        calls = self.sorted([self.resolved(call, by_name) for call in waiting], inputs)
        ends = tuple(_resolved(place, by_name) for place in outputs)
        known = {*inputs, *(call.output for call in calls)}
        if not known.issuperset(ends):
            raise self.fail("has an output that no layer gives")
        return Model(calls, inputs, ends, shape, dtype)

    def ends(self, value: object, by_name: Mapping[str, Layer]) -> tuple[Place, ...]:
        """Return the places that are a model's inputs or outputs."""
        places = tuple(_places(value))
        if not places or any(name not in by_name for name, _ in places):
            raise self.fail("does not tell its inputs and outputs")
        return places

    def resolved(self, call: Call, by_name: Mapping[str, Layer]) -> Call:
        inputs = tuple(_resolved(place, by_name) for place in call.inputs)
        output = _resolved(call.output, by_name)
        return Call(call.layer, inputs, output)

    def sorted(self, waiting: Sequence[Call], inputs: Sequence[Place]) -> tuple[Call, ...]:
        """Sort calls so that each comes behind what it takes."""
        known, calls = set(inputs), []
        readers: dict[Place, list[int]] = {}
        missing = []
        for index, call in enumerate(waiting):
            missing.append(len(set(call.inputs) - known))
            for place in set(call.inputs):
                readers.setdefault(place, []).append(index)
        ready = [index for index, count in enumerate(missing) if not count][::-1]
        while ready:
            call = waiting[ready.pop()]
            calls.append(call)
            if call.output in known:
                raise self.fail(f"calls {call.layer} in a way that is not read")
            known.add(call.output)
            for index in readers.get(call.output, ()):
                missing[index] -= 1
                if not missing[index]:
                    ready.append(index)
        if len(calls) < len(waiting):
            raise self.fail("has layers whose inputs no layer gives")
        return tuple(calls)


def _resolved(place: Place, by_name: Mapping[str, Layer]) -> Place:
    """Return a place, that of a model without its number: Keras counts its building as a call."""
    layer = by_name.get(place[0])
    return (place[0], 0) if layer is not None and layer.model is not None else place


def _input(layer: Layer) -> tuple[Any, str]:
    """Return the shape with the batch and the type that a first layer tells."""
    settings = layer.settings
    keys = ("batch_input_shape", "batch_shape")
    shape = next((settings.get(key) for key in keys if settings.get(key) is not None), None)
    if shape is None and layer.model is not None:
        return layer.model.batch_shape, layer.model.dtype
    dtype = settings.get("dtype") if layer.kind == "InputLayer" else None
    return shape, dtype if isinstance(dtype, str) else "float32"


def _inputs(node: object) -> list[Place]:
    """Return what a call takes, in the way of Keras 2 (lists) or 3 (objects)."""
    if isinstance(node, dict):
        return _tensors([node.get("args"), node.get("kwargs")])
    return _places(node)


def _places(value: object) -> list[Place]:
    """Return the tensors in nested lists of ``[layer, call, output, other arguments]``."""
    found: list[Place] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            name, call, *others = (*item, None, None)
            if isinstance(name, str) and isinstance(call, int):
                found.append((name, call))
                stack += [other for other in others if isinstance(other, dict)]
            else:
                stack += reversed(item)
        elif isinstance(item, dict):
            stack += reversed(item.values())
    return found


def _tensors(value: object) -> list[Place]:
    """Return the tensors among the arguments of a call, as Keras 3 writes them."""
    found: list[Place] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("class_name") == "__keras_tensor__":
                config = item.get("config")
                found += _places(config.get("keras_history")) if isinstance(config, dict) else []
            else:
                stack += reversed(item.values())
        elif isinstance(item, list):
            stack += reversed(item)
    return found


def _snake_case(kind: str) -> str:
    """Return a class's name as Keras writes it in file paths, such as ``quant_conv2d``."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", kind))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
