"""Names of headers that are not UTF-8.

Kafka wants UTF-8 and checks nothing, and some clients write whatever bytes they are given. The decoders of the three
clients fail at such a name, each time that the record is read again, and with it ends the process. Here the header
keeps its value, under the name ``UNREADABLE``: librdkafka does not give the bytes of the name, and every client can
write this one.
"""

from __future__ import annotations

from typing import SupportsIndex, overload

UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class TolerantBuffer(bytearray):
    """The bytes of a batch, in which a decoder written in Python finds ``UNREADABLE`` instead of failing."""

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> bytearray: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> int | bytearray:
        return _Slice(super().__getitem__(key)) if isinstance(key, slice) else super().__getitem__(key)


class _Slice(bytearray):
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        try:
            return super().decode(encoding, errors)
        except UnicodeDecodeError:
            return UNREADABLE
