"""The headers of a message of confluent-kafka, some of whose names may not be UTF-8; see ``header_names``."""

from __future__ import annotations

from operator import methodcaller
from typing import Any

from centinela.kafka.header_names import UNREADABLE
from centinela.kafka.port import Headers

given_headers = methodcaller("headers")
"""A message's headers, or ``SystemError`` at such a name: confluent-kafka returns with an exception set, and Python
does not check that where it calls the method itself, once it has optimised the call; a later line would fail."""


def readable_headers(message: Any) -> Headers:
    """The headers of *message*, at which ``given_headers`` failed.

    confluent-kafka now gives pairs that have no first member, and the interpreter crashes where that is touched. Only
    ``repr`` shows it safely, as ``<NULL>`` without quotes.
    """
    pairs = given_headers(message)
    return tuple((UNREADABLE, pair[1]) if repr(pair).startswith("(<NULL>, ") else pair for pair in pairs)
