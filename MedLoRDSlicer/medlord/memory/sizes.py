"""Amounts of memory as people write them. Imports nothing heavy: the command line reads options with it."""

from __future__ import annotations

import re

from ..errors import InputError

_UNITS = {"mb": 10**6, "gb": 10**9, "tb": 10**12, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_memory(text: str) -> int:
    """Bytes of an amount such as "8GB", "8 GiB", "1.5GB" or "800MB"; GB is 10^9 bytes, GiB 2^30.

    Raises `InputError` for everything else, a number without a unit and zero included.
    """
    found = re.fullmatch(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([MGT]i?B)\s*", text, re.IGNORECASE)
    amount = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if amount <= 0:
        raise InputError(f"'{text[:40]}' is no amount of memory; write it like 8GB, 8GiB or 800MB.")
    return amount


def in_words(amount: int) -> str:
    """Bytes for a message: "8.0 GB", below one GB "812 MB"; nothing free is "0 MB"."""
    amount = max(amount, 0)
    return f"{amount / 10**9:.1f} GB" if amount >= 10**9 else f"{amount / 10**6:.0f} MB"
