"""Signatures of bundles: who trained signs the manifest, which holds the digest of every file; who serves checks it.

Ed25519. A signing key is ``csk_<name>_<secret>``; its public half, ``name:ed25519.<key>``, may be known to anybody.
Several public keys may be trusted at once: that is how a key is changed.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from centinela.errors import CentinelaError, ModelRejected
from centinela.settings import Settings

SCHEME: Final = "ed25519"
_PREFIX = "csk_"
_PURPOSE = b"centinela-bundle-v1\x00"
"""Signed together with the manifest, so that nothing else that a key may sign can pass as one."""
_NAME = re.compile(r"[a-z0-9-]{1,40}")
MAX_SIGNATURE_BYTES = 200


class InvalidSigningKeys(CentinelaError):
    """A signing key, or a list of public ones, cannot be used: the message never shows a secret."""


class SigningKey(NamedTuple):
    """What signs; kept by the trainer alone."""

    name: str
    secret: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.name!r})"

    def sign(self, manifest: bytes) -> bytes:
        """The content of the signature's file for *manifest*."""
        return f"{self.name}:{SCHEME}.{_text(self.secret.sign(_PURPOSE + manifest))}\n".encode()

    def public(self) -> str:
        """The line for the list of trusted keys."""
        return f"{self.name}:{SCHEME}.{_text(self.secret.public_key().public_bytes_raw())}"


class TrustedKeys:
    """Public keys by name."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = dict(keys)

    def check(self, manifest: bytes, signature: bytes | None) -> None:
        """Return where one of the keys signed *manifest*.

        Args:
            signature: Content of the signature's file; None where there is none.

        Raises:
            ModelRejected: ``unsigned``, ``unknown_signer`` or ``wrong_signature``.
        """
        if signature is None:
            raise ModelRejected("unsigned: the bundle has no signature, and only signed ones are loaded here")
        name, _, kept = signature.decode("ascii", "replace").strip().partition(":")
        key = self._keys.get(name)
        if key is None:
            raise ModelRejected(f"unknown_signer: signed by {name[:40]!r}; trusted are {', '.join(sorted(self._keys))}")
        scheme, _, text = kept.partition(".")
        try:
            if scheme != SCHEME:
                raise InvalidSignature
            key.verify(_bytes(text), _PURPOSE + manifest)
        except (InvalidSignature, ValueError) as error:
            raise ModelRejected(f"wrong_signature: {name} did not sign this manifest") from error


def new_key(name: str) -> tuple[str, SigningKey]:
    """A fresh pair: the signing key as text, and the key.

    Raises:
        InvalidSigningKeys: *name* is not 1 to 40 of ``a-z 0-9 -``.
    """
    if not _NAME.fullmatch(name):
        raise InvalidSigningKeys(f"a key's name has 1 to 40 of a-z, 0-9 and -; not {name!r}")
    secret = Ed25519PrivateKey.generate()
    return f"{_PREFIX}{name}_{_text(secret.private_bytes_raw())}", SigningKey(name, secret)


def parse_signing_key(text: str) -> SigningKey:
    """The signing key that ``centinela keys signing`` printed.

    Raises:
        InvalidSigningKeys: It is not a key.
    """
    name, _, secret = text.strip().removeprefix(_PREFIX).partition("_")
    try:
        if not text.strip().startswith(_PREFIX) or not _NAME.fullmatch(name):
            raise ValueError
        return SigningKey(name, Ed25519PrivateKey.from_private_bytes(_bytes(secret)))
    except ValueError as error:
        raise InvalidSigningKeys("the signing key is not one that `centinela keys signing` makes") from error


def parse_trusted(lines: Iterable[str]) -> TrustedKeys:
    """Public keys, one ``name:ed25519.<key>`` a line; ``#`` begins a comment.

    Raises:
        InvalidSigningKeys: A line is not a key, a name appears twice, or there is no key.
    """
    keys: dict[str, Ed25519PublicKey] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, kept = text.partition(":")
        scheme, _, key = kept.partition(".")
        try:
            if not _NAME.fullmatch(name) or scheme != SCHEME or name in keys:
                raise ValueError
            keys[name] = Ed25519PublicKey.from_public_bytes(_bytes(key))
        except ValueError as error:
            raise InvalidSigningKeys(
                f"line {number} of the trusted model keys is not name:ed25519.key, or names one twice"
            ) from error
    if not keys:
        raise InvalidSigningKeys("the list of trusted model keys has no entry")
    return TrustedKeys(keys)


def trusted_keys(settings: Settings) -> TrustedKeys | None:
    """The keys by one of which a bundle must be signed; None where signatures are not asked for.

    Raises:
        InvalidSigningKeys: They cannot be read or used.
    """
    text = read_setting("CENTINELA_MODEL_PUBLIC_KEYS", settings.model_public_keys, settings.model_public_keys_file)
    return None if text is None else parse_trusted(re.split(r"\n" if settings.model_public_keys_file else r"\s", text))


def read_setting(variable: str, value: str | None, file: Path | None) -> str | None:
    """*value*, or what *file* holds; None where neither is set.

    Raises:
        InvalidSigningKeys: Both are set, or the file cannot be read.
    """
    if value is not None and file is not None:
        raise InvalidSigningKeys(f"set {variable} or {variable}_FILE, not both")
    if file is None:
        return value
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSigningKeys(f"{variable}_FILE={file} cannot be read: {error}") from error


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """Raises ``ValueError`` for what is not base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
