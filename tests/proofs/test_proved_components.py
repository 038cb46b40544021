"""No component between two streams is left without a proof."""

import importlib
import inspect
import pkgutil

from amaranth.lib import wiring
from stream_cases import CASES, subject

import xnorflow.hw

#: Components that need no proof of their own.
OTHERWISE = {
    "_ChannelStage": "ThresholdStage and ScoreStage are two of it",
    "_Narrow": "a part of WidthConverter",
    "_Widen": "a part of WidthConverter",
    "StreamingCore": "a chain of proved stages; whole cores are simulated against the golden model",
}


def between_streams() -> set[str]:
    """Return the classes of hw/, but for the link, that have streams `i` and `o`."""
    found = set()
    for module in pkgutil.iter_modules(xnorflow.hw.__path__, "xnorflow.hw."):
        if module.ispkg:
            continue
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if not issubclass(kind, wiring.Component) or kind.__module__ != module.name:
                continue
            # Members are made by constructors, so that only the text tells them.
            parents = [base for base in kind.__mro__ if base.__module__.startswith("xnorflow")]
            text = "".join(inspect.getsource(parent) for parent in parents)
            if '"i": In(stream.Signature(' in text and '"o": Out(stream.Signature(' in text:
                found.add(name)
    return found


def test_every_component_between_streams_has_a_proof_or_a_reason():
    proved = {subject(make(**parameters)[0]) for make, parameters in CASES}
    assert between_streams() == proved | OTHERWISE.keys()
    assert not proved & OTHERWISE.keys()
