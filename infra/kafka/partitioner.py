"""Where a keyed record goes, as Kafka's Java client and aiokafka decide it: murmur2 of the key."""

from struct import unpack_from
from typing import Final

_MASK: Final = 0xFFFFFFFF
_FACTOR: Final = 0x5BD1E995
_SEED: Final = 0x9747B28C


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key. aiokafka's own function gives the same in four times the time, most of a relay's."""
    length = len(key)
    hashed = _SEED ^ length
    for word in unpack_from(f"<{length >> 2}I", key):
        mixed = word * _FACTOR & _MASK
        hashed = (hashed * _FACTOR & _MASK) ^ ((mixed ^ (mixed >> 24)) * _FACTOR & _MASK)
    if length & 3:
        hashed = (hashed ^ int.from_bytes(key[length & ~3 :], "little")) * _FACTOR & _MASK
    hashed = (hashed ^ (hashed >> 13)) * _FACTOR & _MASK
    return ((hashed ^ (hashed >> 15)) & 0x7FFFFFFF) % partitions
