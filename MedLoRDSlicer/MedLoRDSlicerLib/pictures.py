"""Pictures for Qt."""

from __future__ import annotations

import numpy as np


def portable_graymap(picture: np.ndarray) -> bytes:
    """An image file (PGM) of a picture (rows, columns) of uint8 grey values, which every Qt reads from memory."""
    rows, columns = picture.shape
    return b"P5 %d %d 255\n" % (columns, rows) + np.ascontiguousarray(picture, dtype=np.uint8).tobytes()
