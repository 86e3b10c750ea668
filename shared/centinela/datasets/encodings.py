"""Text in any encoding as UTF-8 bytes. What cannot be decoded becomes bytes that are not UTF-8, so that only its row is
lost."""

from __future__ import annotations

import codecs
from typing import IO

from centinela.datasets.table import UnreadableFile

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HANDLER = "centinela.undecodable"
_UNDECODABLE = "\udcff"
codecs.register_error(_HANDLER, lambda error: (_UNDECODABLE, getattr(error, "end", 0)))


def known_encoding(name: str) -> str:
    """The standard name of the text encoding *name*.

    Raises:
        UnreadableFile: There is none.
    """
    try:
        codec = codecs.lookup(name)
        if "a".encode(codec.name).decode(codec.name) != "a":
            raise LookupError
    except (LookupError, TypeError, ValueError, AssertionError) as error:
        raise UnreadableFile(
            f"--encoding {name!r} is unknown; common ones: utf-8, utf-16, cp1252 (Windows), latin-1, shift_jis, gb18030"
        ) from error
    return codec.name


def detect_encoding(sample: bytes, source: str) -> str:
    """The encoding of a file that begins with *sample*: by its byte order mark, else UTF-16 by its zeros, else UTF-8.

    Raises:
        UnreadableFile: It is none of them; which it is, only a person can know.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return name
    head = sample[:4096]
    if head.count(0) > len(head) // 3:
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(sample)
    wrong = text.count("\ufffd")
    if wrong > sum(not character.isascii() for character in text) - wrong:
        at = next(at for at, line in enumerate(text.splitlines(), 1) if "\ufffd" in line)
        raise UnreadableFile(
            f"{source} is not UTF-8 (line {at}): pass --encoding, such as cp1252 for a file from Windows, latin-1 or"
            " shift_jis. With --encoding utf-8 each row that is not goes to the dead letters"
        )
    return "utf-8"


class Utf8Stream:
    """*stream* in *encoding*, read as UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str) -> None:
        self._stream = stream
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)(_HANDLER)
        self._ended = False

    def read(self, size: int, /) -> bytes:
        """About *size* bytes; none at the end."""
        if self._decoder is None:
            return self._stream.read(size)
        while not self._ended:
            raw = self._stream.read(size)
            self._ended = not raw
            if text := self._decoder.decode(raw, final=self._ended):
                return text.encode("utf-8", "surrogatepass")
        return b""

    def skip(self, size: int) -> bytes:
        """Drop *size* bytes; what was read beyond them."""
        content = b""
        while len(content) < size and (new := self.read(1 << 20)):
            content += new
        return content[size:]
