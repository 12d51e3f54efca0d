"""Which partition a user belongs to, by the rule of the Java clients."""

from __future__ import annotations

from functools import lru_cache

from kafka.partitioner.default import murmur2

__all__ = ["home_of"]


@lru_cache(maxsize=200_000)
def home_of(user: bytes, partitions: int) -> int:
    """The partition to which the Java clients send this key.

    >>> home_of(b"user", 8)
    6
    """
    return (murmur2(user) & 0x7FFFFFFF) % partitions
