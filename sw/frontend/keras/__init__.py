"""Reader of Keras and Larq models, which needs no TensorFlow.

In the order in which a file is read:

- :mod:`~xnorflow.frontend.keras.files`: the zip or HDF5 file, its configuration and weights;
  :mod:`~xnorflow.frontend.keras.hdf5` has HDF5 read by another process,
- :mod:`~xnorflow.frontend.keras.model`: layers and how they are connected,
- :mod:`~xnorflow.frontend.keras.layers`: what each layer is in operators of ONNX and QONNX;
  :mod:`~xnorflow.frontend.keras.quantizers` has Larq's quantizers by their names,
- :mod:`~xnorflow.frontend.keras.reader`: all of it, to the graph that the walk imports.
"""

from __future__ import annotations

from xnorflow.frontend.keras.files import is_keras
from xnorflow.frontend.keras.reader import read_keras

__all__ = ["is_keras", "read_keras"]
