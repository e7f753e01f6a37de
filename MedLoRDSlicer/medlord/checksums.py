"""The SHA-256 that says that a file is still the one that was meant."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK_BYTES = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text; raises OSError when it cannot be read."""
    # hashlib.file_digest came with Python 3.11; studies and bundles are also read in the Python 3.9 of Slicer 5.8.
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
