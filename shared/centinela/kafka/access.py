"""How the brokers are reached, and as which user: from settings to the options of each of the three clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from centinela.errors import CentinelaError
from centinela.settings import Settings

READERS = "centinela-reader"
"""The group that consumers without one name: librdkafka demands it, nothing is ever committed."""


class InvalidAccess(CentinelaError):
    """Inconsistent settings of the access to Kafka: the message says which to set."""


@dataclass(frozen=True)
class Access:
    """Brokers and how to connect to them. No representation shows a password.

    Args:
        user: The user's name; None without SASL.
        cafile: Certificates to trust; None: the system's.
        certificate: Own certificate and its key, as files.
    """

    servers: str
    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: Path | None = None
    certificate: tuple[Path, Path] | None = None
    key_password: str | None = field(default=None, repr=False)
    check_hostname: bool = True

    @property
    def encrypted(self) -> bool:
        return self.protocol.endswith("SSL")

    @classmethod
    def to(cls, brokers: str | Access) -> Access:
        """*brokers* itself; mere addresses become an access without encryption or user."""
        return brokers if isinstance(brokers, Access) else cls(brokers)

    def kafka_python(self) -> dict[str, Any]:
        """Options of kafka-python's clients."""
        options: dict[str, Any] = {"bootstrap_servers": self.servers.split(","), "security_protocol": self.protocol}
        if self.encrypted:
            options["ssl_context"] = self.context()
        if self.mechanism is not None:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options

    def librdkafka(self) -> dict[str, Any]:
        """Options of librdkafka."""
        options: dict[str, Any] = {"bootstrap.servers": self.servers, "security.protocol": self.protocol}
        if self.encrypted:
            options["ssl.endpoint.identification.algorithm"] = "https" if self.check_hostname else "none"
            if self.cafile is not None:
                options["ssl.ca.location"] = str(self.cafile)
            if self.certificate is not None:
                options |= {
                    "ssl.certificate.location": str(self.certificate[0]),
                    "ssl.key.location": str(self.certificate[1]),
                }
            if self.key_password is not None:
                options["ssl.key.password"] = self.key_password
        if self.mechanism is not None:
            options |= {"sasl.mechanism": self.mechanism, "sasl.username": self.user, "sasl.password": self.password}
        return options

    def context(self) -> ssl.SSLContext | None:
        """What TLS trusts and presents, for Python's own clients; None where nothing is encrypted.

        Raises:
            InvalidAccess: A file cannot be used.
        """
        if not self.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.cafile)
            context.check_hostname = self.check_hostname
            if self.certificate is not None:
                context.load_cert_chain(*self.certificate, password=self.key_password or "")
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(file) for file in (self.cafile, *(self.certificate or ())) if file is not None)
            raise InvalidAccess(f"the certificates for Kafka cannot be used ({files}): {error}") from error
        return context


def access(settings: Settings) -> Access:
    """The access to Kafka that *settings* describe.

    Raises:
        InvalidAccess: They are inconsistent, or a file cannot be read.
    """
    protocol = settings.kafka_security_protocol
    sasl = protocol.startswith("SASL_")
    password = _password(settings)
    user = settings.kafka_sasl_username
    if sasl and not (user and password):
        raise InvalidAccess(
            f"CENTINELA_KAFKA_SECURITY_PROTOCOL={protocol} needs CENTINELA_KAFKA_SASL_USERNAME, and"
            " CENTINELA_KAFKA_SASL_PASSWORD or _PASSWORD_FILE"
        )
    if not sasl and (user or password):
        raise InvalidAccess(
            f"CENTINELA_KAFKA_SASL_USERNAME or its password is set, but CENTINELA_KAFKA_SECURITY_PROTOCOL={protocol}"
            " sends neither: set SASL_SSL"
        )
    encrypted = protocol.endswith("SSL")
    files = {
        "CAFILE": settings.kafka_ssl_cafile,
        "CERTFILE": settings.kafka_ssl_certfile,
        "KEYFILE": settings.kafka_ssl_keyfile,
    }
    if not encrypted and (named := [f"CENTINELA_KAFKA_SSL_{name}" for name, file in files.items() if file is not None]):
        raise InvalidAccess(
            f"{', '.join(named)}: set, but CENTINELA_KAFKA_SECURITY_PROTOCOL={protocol} encrypts nothing: set"
            f" {'SASL_SSL' if sasl else 'SSL'}"
        )
    if missing := [
        f"CENTINELA_KAFKA_SSL_{name}={file}" for name, file in files.items() if file is not None and not file.is_file()
    ]:
        raise InvalidAccess(f"no such file: {', '.join(missing)}")
    if (settings.kafka_ssl_certfile is None) != (settings.kafka_ssl_keyfile is None):
        raise InvalidAccess(
            "CENTINELA_KAFKA_SSL_CERTFILE and CENTINELA_KAFKA_SSL_KEYFILE are set together or not at all"
        )
    if sasl and settings.kafka_sasl_mechanism == "PLAIN" and not encrypted and not settings.insecure:
        raise InvalidAccess(
            "SASL_PLAINTEXT with PLAIN sends the password in clear text: set"
            " CENTINELA_KAFKA_SECURITY_PROTOCOL=SASL_SSL or a SCRAM mechanism, or CENTINELA_INSECURE=true where"
            " something else protects the connection"
        )
    certificate = (
        (settings.kafka_ssl_certfile, settings.kafka_ssl_keyfile)
        if settings.kafka_ssl_certfile and settings.kafka_ssl_keyfile
        else None
    )
    result = Access(
        settings.kafka_bootstrap_servers,
        protocol,
        settings.kafka_sasl_mechanism if sasl else None,
        user if sasl else None,
        password,
        settings.kafka_ssl_cafile,
        certificate,
        settings.kafka_ssl_key_password.get_secret_value() if settings.kafka_ssl_key_password else None,
        settings.kafka_ssl_check_hostname,
    )
    result.context()
    return result


def _password(settings: Settings) -> str | None:
    given = settings.kafka_sasl_password
    file = settings.kafka_sasl_password_file
    if given is not None and file is not None:
        raise InvalidAccess("set CENTINELA_KAFKA_SASL_PASSWORD or CENTINELA_KAFKA_SASL_PASSWORD_FILE, not both")
    if file is None:
        return given.get_secret_value() if given is not None else None
    try:
        return file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidAccess(f"CENTINELA_KAFKA_SASL_PASSWORD_FILE={file} cannot be read: {error}") from error
