"""Hashes that every worker, every restart and every machine agrees on.

Python's own hash() of bytes and str changes with PYTHONHASHSEED: a key hashed with it would go to another backend in
another worker. Not for secrets: who can choose keys can choose where they fall; what must not be forged is signed.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

MASK64: Final = (1 << 64) - 1


def stable_hash(data: bytes, key: bytes = b"") -> int:
    """The 64-bit hash of ``data``, never 0 (which stands for "no key"). ``key``: at most 64 bytes, gives another,
    independent hash. About 1 µs."""
    return int.from_bytes(blake2b(data, digest_size=8, key=key).digest(), "big") or 1


def mix(value: int, seed: int) -> int:
    """A 64-bit hash of two 64-bit numbers that are hashes themselves: the finaliser of SplitMix64 (Steele, Lea and
    Flood 2014), at half the price of :func:`stable_hash`."""
    x = (value ^ seed) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)
