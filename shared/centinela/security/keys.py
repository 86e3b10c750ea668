"""API keys: made at random, kept as salted hashes, compared in constant time.

A key is ``ck_<name>_<secret>``: the name finds its entry, the secret of 256 random bits proves it. Secrets are random,
so there is nothing to guess and a fast salted hash (BLAKE2b) is enough: a slow one would only cost each request time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, get_args

from centinela.errors import CentinelaError

Role = Literal["producer", "scorer", "operator"]
"""``producer`` writes transactions and labels, ``scorer`` requests verdicts from the gateway, ``operator`` operates the
platform."""

ROLES: Final[tuple[Role, ...]] = get_args(Role)
SCHEME: Final = "blake2b"
_PREFIX = "ck_"
_SECRET_BYTES, _SALT_BYTES, _DIGEST_BYTES = 32, 16, 32
_PERSON = b"centinela-key-v1"
_NAME = re.compile(r"[a-z0-9-]{1,40}")
_HEADER_LIMIT = 200


class InvalidKeys(CentinelaError):
    """The list of keys cannot be used: the message names the entry, never its content."""


class Denied(CentinelaError):
    """A request without permission.

    Args:
        status: 401 where the client is unknown, 403 where it lacks the role.
        error: A constant in snake_case, as in every refusal.
        challenge: The value of ``WWW-Authenticate``.
    """

    def __init__(self, status: int, error: str, detail: str, challenge: str) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        self.headers = {"WWW-Authenticate": challenge}


class Entry(NamedTuple):
    """A key as it is stored."""

    name: str
    role: Role
    salt: bytes
    digest: bytes

    def __str__(self) -> str:
        """The line for the list of keys."""
        return f"{self.name}:{self.role}:{SCHEME}.{_text(self.salt)}.{_text(self.digest)}"


class NewKey(NamedTuple):
    """A new key: the only time that *key* is visible."""

    key: str
    entry: Entry


def new_key(name: str, role: Role) -> NewKey:
    """A fresh random key.

    Raises:
        InvalidKeys: *name* is not 1 to 40 of ``a-z 0-9 -``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidKeys(f"a key's name has 1 to 40 characters of a-z, 0-9 and -; not {name!r}")
    secret, salt = secrets.token_urlsafe(_SECRET_BYTES), secrets.token_bytes(_SALT_BYTES)
    return NewKey(f"{_PREFIX}{name}_{secret}", Entry(name, role, salt, _digest(secret, salt)))


def parse(lines: Iterable[str]) -> dict[str, Entry]:
    """The entries of a list of keys, by name: one ``name:role:blake2b.salt.hash`` a line, ``#`` starts a comment.

    Raises:
        InvalidKeys: A line is not an entry, a name occurs twice, or there is no entry.
    """
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        entry = _entry(text, number)
        if entry.name in entries:
            raise InvalidKeys(f"line {number} of the API keys: the name {entry.name} occurs twice")
        entries[entry.name] = entry
    if not entries:
        raise InvalidKeys("the list of API keys has no entry")
    return entries


class ApiKeys:
    """Decides who may do what. *entries* None: everybody may do everything (a process that only its own machine can
    reach)."""

    def __init__(self, entries: dict[str, Entry] | None) -> None:
        self._entries = entries
        self._decoy = new_key("nobody", "operator").entry

    @property
    def required(self) -> bool:
        """Whether requests need a key."""
        return self._entries is not None

    def require(self, authorization: str | None, role: Role) -> str | None:
        """The name of the key in the header *authorization*; None where none is required.

        Raises:
            Denied: There is no key, it is unknown, or it has another role.
        """
        if self._entries is None:
            return None
        if authorization is None:
            raise Denied(401, "key_missing", "send an API key: `Authorization: Bearer ...`", 'Bearer realm="centinela"')
        scheme, _, key = authorization.strip().partition(" ")
        entry = (
            self._matching(key.strip()) if scheme.lower() == "bearer" and len(authorization) <= _HEADER_LIMIT else None
        )
        if entry is None:
            raise Denied(
                401, "key_invalid", "the API key is not known here", 'Bearer realm="centinela", error="invalid_token"'
            )
        if entry.role != role:
            raise Denied(
                403,
                "role_missing",
                f"this needs a key of the role {role}",
                f'Bearer realm="centinela", error="insufficient_scope", scope="{role}"',
            )
        return entry.name

    def _matching(self, key: str) -> Entry | None:
        """The entry of *key*; an unknown name takes as long as a wrong secret."""
        assert self._entries is not None
        name, _, secret = key.removeprefix(_PREFIX).partition("_")
        entry = self._entries.get(name)
        compared = entry or self._decoy
        matches = hmac.compare_digest(_digest(secret, compared.salt), compared.digest)
        return entry if matches and key.startswith(_PREFIX) else None


def _digest(secret: str, salt: bytes) -> bytes:
    return hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES, salt=salt, person=_PERSON
    ).digest()


def _entry(text: str, number: int) -> Entry:
    line = f"line {number} of the API keys"
    parts = text.split(":")
    if len(parts) != 3:
        raise InvalidKeys(f"{line} is not name:role:hash")
    name, role, encoded = parts
    if not _NAME.fullmatch(name):
        raise InvalidKeys(f"{line}: a name has 1 to 40 characters of a-z, 0-9 and -")
    if role not in ROLES:
        raise InvalidKeys(f"{line}: the role of {name} is not one of {', '.join(ROLES)}")
    scheme, *texts = encoded.split(".")
    try:
        salt, digest = (base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True) for part in texts)
    except (ValueError, binascii.Error):
        salt = digest = b""
    if scheme != SCHEME or len(salt) != _SALT_BYTES or len(digest) != _DIGEST_BYTES:
        raise InvalidKeys(f"{line}: the hash of {name} is not one that `centinela keys new` makes")
    return Entry(name, role, salt, digest)


def _text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
