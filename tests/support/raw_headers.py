"""Records whose headers have names that are any bytes, as clients in Go or C write them."""

from __future__ import annotations

from collections.abc import Sequence

from kafka.record import MemoryRecordsBuilder  # noqa: TID251 - builds what no producer of ours writes


class RawName(str):
    """A name that kafka-python's producer writes as the bytes that it was made of."""

    def __new__(cls, name: bytes) -> RawName:
        made = super().__new__(cls, name.decode(errors="replace"))
        made.raw = name
        return made

    raw: bytes

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


def batch(*headers: Sequence[tuple[str, bytes | None]], codec: int = 0) -> bytes:
    """A batch of a record for each of *headers*, with the values ``0``, ``1``, ..."""
    builder = MemoryRecordsBuilder(2, codec, 1 << 20)
    for n, of_one in enumerate(headers):
        builder.append(1_700_000_000_000, b"k", b"%d" % n, list(of_one))
    builder.close()
    return bytes(builder.buffer())
