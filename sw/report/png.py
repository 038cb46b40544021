"""PNG files of small pictures, without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["data_uri"]

#: Colour type of a PNG by the number of channels.
COLOUR_TYPES = {1: 0, 3: 2}


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image as a ``data:`` address of a PNG (ISO/IEC 15948).

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W) or (H, W, C)
        Grey for one channel, red, green and blue for three; any other number of channels is shown
        as the grey of their mean.
    """
    pixels = np.atleast_3d(np.asarray(image, np.uint8))
    if pixels.shape[2] not in COLOUR_TYPES:
        pixels = pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)
    height, width, channels = pixels.shape
    # Every row starts with its filter type, 0: none.
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    parts = (
        _chunk(b"IHDR", header),
        _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)),
        _chunk(b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
