"""From settings to the access to Kafka: what goes together, what each client is told, and that nobody is shown a
password."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError  # noqa: TID251 its codes are what is mapped

# Its errors are what is mapped.
from kafka.errors import GroupAuthorizationFailedError, KafkaTimeoutError, SaslAuthenticationFailedError  # noqa: TID251

from centinela.errors import AccessRefused, DependencyUnavailable
from centinela.kafka.access import Access, InvalidAccess, access
from centinela.kafka.confluent.common import common_config, port_error
from centinela.kafka.kafka_python import common as kafka_python_common
from centinela.kafka.kafka_python.common import mapped_errors
from centinela.kafka.refusals import REFUSALS, no_answer
from centinela.kafka.timeouts import TIMEOUTS
from centinela.settings import Settings
from centinela_trainer.retraining.child_runner import as_environment
from centinela_trainer.settings import TrainerSettings
from tests.support.secured_broker import make_certificates

SECRET = "not-to-be-seen"  # noqa: S105
SASL: dict[str, Any] = {
    "kafka_security_protocol": "SASL_SSL",
    "kafka_sasl_username": "me",
    "kafka_sasl_password": SECRET,
}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of an authority, and a file of a key and its certificate."""
    authority, own = tmp_path / "ca.pem", tmp_path / "own.pem"
    authority.write_bytes(make_certificates(own))
    return authority, own


def test_without_settings_nothing_is_asked_for_and_nothing_encrypted() -> None:
    made = access(Settings(kafka_bootstrap_servers="a:1,b:2"))
    assert made == Access("a:1,b:2") == Access.to("a:1,b:2")
    assert made.librdkafka() == {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"}
    assert made.kafka_python() == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}
    assert made.context() is None


def test_each_client_is_told_the_same(pair: tuple[Path, Path]) -> None:
    authority, own = pair
    made = access(
        Settings(
            **SASL,
            kafka_ssl_cafile=authority,
            kafka_ssl_certfile=own,
            kafka_ssl_keyfile=own,
            kafka_sasl_mechanism="SCRAM-SHA-256",
        )
    )
    told = made.librdkafka()
    assert {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "me",
        "sasl.password": SECRET,
        "ssl.ca.location": str(authority),
        "ssl.certificate.location": str(own),
        "ssl.key.location": str(own),
        "ssl.endpoint.identification.algorithm": "https",
    }.items() <= told.items()
    told = made.kafka_python()
    assert {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "me",
        "sasl_plain_password": SECRET,
    }.items() <= told.items()
    assert told["ssl_context"].check_hostname
    unchecked = access(Settings(**SASL, kafka_ssl_check_hostname=False))
    context = unchecked.context()
    assert context is not None
    assert not context.check_hostname
    assert unchecked.librdkafka()["ssl.endpoint.identification.algorithm"] == "none"
    common_config(made, TIMEOUTS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "needs CENTINELA_KAFKA_SASL_USERNAME"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "me"},
            "needs CENTINELA_KAFKA_SASL_USERNAME, and CENTINELA_KAFKA_SASL_PASSWORD",
        ),
        ({"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "me", "kafka_sasl_password": ""}, "needs"),
        ({"kafka_sasl_username": "me"}, "sends neither: set SASL_SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_sasl_password": SECRET}, "sends neither"),
        (
            {"kafka_ssl_cafile": Path("ca.pem")},
            (
                "CENTINELA_KAFKA_SSL_CAFILE: set, but CENTINELA_KAFKA_SECURITY_PROTOCOL=PLAINTEXT encrypts nothing:"
                " set SSL"
            ),
        ),
        (
            SASL | {"kafka_ssl_cafile": Path("/nowhere/ca.pem")},
            "no such file: CENTINELA_KAFKA_SSL_CAFILE=/nowhere/ca.pem",
        ),
        (SASL | {"kafka_ssl_certfile": Path(__file__)}, "set together or not at all"),
        (SASL | {"kafka_ssl_cafile": Path(__file__)}, "cannot be used"),
        (
            SASL | {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "PLAIN"},
            "sends the password in clear text",
        ),
        (SASL | {"kafka_sasl_password_file": Path("x")}, "not both"),
        (
            {
                "kafka_security_protocol": "SASL_SSL",
                "kafka_sasl_username": "me",
                "kafka_sasl_password_file": Path("/nowhere"),
            },
            "cannot be read",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_to_set(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAccess) as refused:
        access(Settings(**fields))
    assert message in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_password_may_be_in_a_file_and_plain_text_must_be_meant(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    fields: dict[str, Any] = {
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "PLAIN",
        "kafka_sasl_username": "me",
    }
    assert access(Settings(**fields, kafka_sasl_password_file=tmp_path / "password", insecure=True)).password == SECRET


def test_no_representation_shows_a_secret() -> None:
    settings = TrainerSettings(**SASL, kafka_ssl_key_password=SECRET, api_keys=SECRET, model_signing_key=SECRET)
    shown = f"{settings!r}{settings!s}{settings.model_dump()}{settings.model_dump_json()}"
    shown += f"{access(settings)!r}{access(settings)!s}"
    assert SECRET not in shown
    assert as_environment(settings)["CENTINELA_KAFKA_SASL_PASSWORD"] == SECRET, "a child must be able to connect"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "does not allow this to the client's user"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "centinela acls list"),
        (KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "does not allow"),
        (KafkaError._AUTHENTICATION, "refuses this client"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, "CENTINELA_KAFKA_SECURITY_PROTOCOL"),
    ],
)
def test_librdkafkas_refusals_end_the_process_rather_than_being_waited_out(code: int, message: str) -> None:
    for fatal in (False, True):
        error = port_error(KafkaError(code, "why", fatal=fatal))
        assert isinstance(error, AccessRefused)
        assert not isinstance(error, DependencyUnavailable)
        assert message in str(error)


@pytest.mark.parametrize("raised", [SaslAuthenticationFailedError("why"), GroupAuthorizationFailedError("g")])
def test_kafka_pythons_refusals_are_refusals(raised: Exception) -> None:
    with pytest.raises(AccessRefused), mapped_errors():
        raise raised


def test_a_time_out_after_a_refusal_is_told_as_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REFUSALS, "_latest", None)
    assert isinstance(no_answer("silence"), DependencyUnavailable)
    asked: list[Access] = []

    def ask(brokers: Access, _timeout_s: float) -> None:
        asked.append(brokers)
        REFUSALS.note("the password is wrong")

    monkeypatch.setattr(kafka_python_common, "ask_why", ask)
    kafka_python_common.common_config("a:1", TIMEOUTS)
    with pytest.raises(DependencyUnavailable), mapped_errors():
        raise KafkaTimeoutError
    assert asked == [], "where nothing is encrypted and nobody named there is nothing to refuse"
    secured = access(Settings(**SASL))
    kafka_python_common.common_config(secured, TIMEOUTS)
    for _ in range(3):
        with pytest.raises(AccessRefused, match="the password is wrong"), mapped_errors():
            raise KafkaTimeoutError
    assert asked == [secured], "once in a while is enough"
