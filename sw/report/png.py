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
    image : ndarray of uint8, shape (H, W), (H, W, 1) or (H, W, 3)

    Raises
    ------
    ValueError
        If the image has another number of channels.
    """
    pixels = np.atleast_3d(np.asarray(image, np.uint8))
    height, width, channels = pixels.shape
    if channels not in COLOUR_TYPES:
        raise ValueError(f"a picture has 1 or 3 channels, not {channels}")
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
