"""What a person may say about a file, where it is not recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from centinela.datasets.encodings import known_encoding
from centinela.datasets.table import UnreadableFile

Decimal = Literal[".", ","]
_SEPARATORS = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}


@dataclass(frozen=True)
class FileOptions:
    """Separator (one ASCII character), decimal sign and encoding of a CSV file; None is recognised by the content."""

    separator: str | None = None
    decimal: Decimal | None = None
    encoding: str | None = None

    @classmethod
    def of(cls, separator: str | None, decimal: str | None, encoding: str | None) -> FileOptions:
        """As typed in.

        Raises:
            UnreadableFile: One is not usable; the message names the option.
        """
        if separator is not None:
            separator = _SEPARATORS.get(separator.lower(), separator)
            if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
                raise UnreadableFile(f"--separator {separator!r} is not one ASCII character, nor 'tab'")
        if decimal not in (None, ".", ","):
            raise UnreadableFile(f"--decimal {decimal!r} is neither '.' nor ','")
        return cls(separator, cast(Decimal | None, decimal), None if encoding is None else known_encoding(encoding))
