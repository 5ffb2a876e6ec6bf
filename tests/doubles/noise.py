"""Bytes for bulk transfers: made fast, no block twice in a stream, the same for the same seed in every process."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import cache

BLOCK = 256 * 1024


@cache
def _noise(seed: int) -> bytes:
    return random.Random(seed).randbytes(BLOCK - 16)


def blocks(seed: int, size: int) -> Iterator[bytes]:
    """``size`` bytes: blocks of noise, each with its seed and number, so that a lost or swapped block shows."""
    noise = _noise(seed)
    for number in range(-(-size // BLOCK)):
        block = b"%08x%08x" % (seed, number) + noise
        yield block if (number + 1) * BLOCK <= size else block[: size - number * BLOCK]


@cache
def digest(seed: int, size: int) -> str:
    """SHA-256 of :func:`blocks`."""
    sha = hashlib.sha256()
    for block in blocks(seed, size):
        sha.update(block)
    return sha.hexdigest()
