"""Cuts a stream of CSV into blocks of whole records, so that no line break inside quotes and no unclosed quote can move
the rows that follow."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

BLOCK_BYTES = 4 << 20
RECORD_BYTES = 1 << 20
"""A longer record is not a transaction: Kafka would refuse it. A quote that is not closed by then is a mistake."""


class Source(Protocol):
    """Where bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most about *size* bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Block:
    """Whole records. In place of each of ``broken``, in order, stands a line with more fields than the header."""

    content: bytes
    broken: deque[bytes] = field(default_factory=deque)


class RecordCutter:
    """Knows where records end, for one separator and quote (one byte each).

    A field is quoted if it starts with a quote. It ends at the next quote that is not doubled, and then a separator or
    the end of the line must follow. A record that breaks this rule is cut off at the end of its line.
    """

    def __init__(self, separator: bytes, quote: bytes, columns: int) -> None:
        s, q = re.escape(separator), re.escape(quote)
        plain, literal = rb"[^%s\r\n]++" % q, rb"(?<=[^%s\r\n])%s" % (s, q)
        quoted = rb"%s(?:[^%s]++|%s%s)*+%s *+(?=[%s\r\n])" % (q, q, q, q, q, s)
        record = rb"(?:%s|%s|%s)*+[\r\n]" % (plain, literal, quoted)
        self._records = re.compile(rb"(?:%s)*+" % record)
        self._record = re.compile(record)
        self._quote = quote
        self._filler = separator * columns + b"\n"

    def first(self, sample: bytes) -> bytes:
        """The first record of *sample* with its line end; all of it where no record ends."""
        found = self._record.match(sample)
        return found.group() if found else sample

    def blocks(self, source: Source) -> Iterator[Block]:
        """All records of *source*, which begins with one."""
        rest, ended = b"", False
        while not ended:
            new = source.read(BLOCK_BYTES)
            ended = not new
            content = rest + (new or b"\n")
            block, used = self._cut(content, ended)
            rest = content[used:]
            if block.content:
                yield block

    def _cut(self, content: bytes, ended: bool) -> tuple[Block, int]:
        """The records at the start of *content*, and how many bytes they take."""
        parts: list[bytes] = []
        broken: deque[bytes] = deque()
        at = 0
        while at < len(content):
            end = self._end(content, at)
            if end > at:
                parts.append(content[at:end])
            elif not ended and len(content) - at < RECORD_BYTES:
                break
            else:
                end = _line_end(content, at)
                broken.append(content[at:end])
                parts.append(self._filler)
            at = end
        return Block(b"".join(parts), broken), at

    def _end(self, content: bytes, at: int) -> int:
        """Where the last whole record ends that follows *at* without a broken one between."""
        if content.find(self._quote, at) < 0:
            return max(at, content.rfind(b"\n") + 1, content.rfind(b"\r") + 1)
        found = self._records.match(content, at)
        return found.end() if found else at


def _line_end(content: bytes, at: int) -> int:
    found = re.compile(rb"[\r\n]").search(content, at)
    return found.end() if found else len(content)
