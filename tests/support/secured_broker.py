"""A Kafka node that trusts nobody: TLS and SCRAM for clients, access by ACL only, certificates made on the spot."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from centinela_local.broker.embedded import Node, server_properties
from centinela_local.broker.jars import ensure_jars, find_java
from centinela_local.processes.background import BackgroundProcess
from centinela_local.processes.ports import LOOPBACK, free_port

ADMIN, ADMIN_PASSWORD = "admin", "admin-secret"
MECHANISM = "SCRAM-SHA-512"
_LOGIN = "org.apache.kafka.common.security"
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


class SecuredBroker:
    """One node on free ports; no process of it is left after ``stop``.

    Args:
        folder: An empty folder, which the caller removes.
        users: Names to passwords of the users in addition to ``ADMIN``, who may do everything.
    """

    def __init__(self, folder: Path, users: Mapping[str, str]) -> None:
        self._node = Node(folder, free_port(), free_port(), heap_mb=384)
        self._users = {ADMIN: ADMIN_PASSWORD, **users}
        self._process: BackgroundProcess | None = None
        self.certificate = folder / "ca.pem"

    @property
    def bootstrap_servers(self) -> str:
        return self._node.bootstrap_servers

    def environment(self, user: str, password: str) -> dict[str, str]:
        """The variables with which a process of the platform connects as *user*."""
        return {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "CENTINELA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "CENTINELA_KAFKA_SASL_MECHANISM": MECHANISM,
            "CENTINELA_KAFKA_SASL_USERNAME": user,
            "CENTINELA_KAFKA_SASL_PASSWORD": password,
            "CENTINELA_KAFKA_SSL_CAFILE": str(self.certificate),
        }

    def start(self) -> None:
        """Start and wait until the clients' port is open."""
        folder, java, classpath = self._node.folder, find_java(), f"{ensure_jars()}/*"
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate.write_bytes(make_certificates(folder / "server.pem"))
        properties = folder / "server.properties"
        properties.write_text(
            server_properties(self._node) + "".join(f"{key}={value}\n" for key, value in self._secured().items())
        )
        scram = [f"--add-scram={MECHANISM}=[name={name},password={password}]" for name, password in self._users.items()]
        subprocess.run(
            [
                str(java),
                "-Xmx128m",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                classpath,
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={_CLUSTER}",
                "--config",
                str(properties),
                *scram,
            ],
            check=True,
            capture_output=True,
        )
        command = [
            str(java),
            "-Xms192m",
            f"-Xmx{self._node.heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Djava.net.preferIPv4Stack=true",
            "-cp",
            classpath,
            "kafka.Kafka",
            str(properties),
        ]
        self._process = BackgroundProcess("Kafka", command, log=folder / "kafka.log", answers=self._listens)
        self._process.start()

    def stop(self) -> None:
        """End it at once. Idempotent."""
        if self._process is not None:
            self._process.stop(0)

    def _listens(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self._node.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _secured(self) -> dict[str, str]:
        """Clients and the node itself by TLS and SCRAM, the controller by a password of its own; nobody unnamed may do
        anything."""
        scram = f'{_LOGIN}.scram.ScramLoginModule required username="{ADMIN}" password="{ADMIN_PASSWORD}";'
        plain = (
            f'{_LOGIN}.plain.PlainLoginModule required username="{ADMIN}" password="{ADMIN_PASSWORD}"'
            f' user_{ADMIN}="{ADMIN_PASSWORD}";'
        )
        return {
            "listeners": f"CLIENTS://{LOOPBACK}:{self._node.port},CONTROLLER://{LOOPBACK}:{self._node.controller_port}",
            "advertised.listeners": f"CLIENTS://{LOOPBACK}:{self._node.port}",
            "listener.security.protocol.map": "CLIENTS:SASL_SSL,CONTROLLER:SASL_PLAINTEXT",
            "inter.broker.listener.name": "CLIENTS",
            "sasl.enabled.mechanisms": MECHANISM,
            "sasl.mechanism.inter.broker.protocol": MECHANISM,
            "sasl.mechanism.controller.protocol": "PLAIN",
            f"listener.name.clients.{MECHANISM.lower()}.sasl.jaas.config": scram,
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": plain,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str((self._node.folder / "server.pem").resolve()),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificate.resolve()),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:{ADMIN}",
            "allow.everyone.if.no.acl.found": "false",
        }


def make_certificates(server: Path) -> bytes:
    """Write key and certificate of a server on the loopback interface to *server*; the certificate of who signed it."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    signer = _name("centinela test authority")
    ca = _certificate(signer, signer, authority, authority, x509.BasicConstraints(ca=True, path_length=0))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK)), x509.DNSName("localhost")])
    leaf = _certificate(_name("localhost"), signer, own, authority, names)
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server.write_bytes(key + leaf)
    return ca


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    own: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer,
        subject,
        own.public_key(),
        x509.random_serial_number(),
        now - datetime.timedelta(hours=1),
        now + datetime.timedelta(days=1),
    ).add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
