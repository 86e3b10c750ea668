"""Secrets of settings are in no log, no message and no error: of processes as they start, wait, fail and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from centinela.model.signing import new_key as new_signing_key
from centinela.security.keys import new_key
from centinela.settings_table import is_secret, variables
from centinela_local.paths import CHECKOUT
from centinela_trainer.settings import TrainerSettings
from tests.support.waiting import until

NO_BROKER = "127.0.0.1:9"
PASSWORD, KEY_PASSWORD = "pw-not-to-be-seen", "keypw-not-to-be-seen"
API_KEY = new_key("shop", "producer")
SIGNING, _ = new_signing_key("trainer")
SECRETS = (PASSWORD, KEY_PASSWORD, API_KEY.key, str(API_KEY.entry).rpartition(".")[2], SIGNING)


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    """Every secret is set, everything is logged, and there is no broker."""
    everyday = {
        name: value for name, value in os.environ.items() if not name.startswith(("CENTINELA_", "KAFKA_", "MLFLOW_"))
    }
    ports = {
        f"CENTINELA_{name}_PORT": "0"
        for name in ("INGEST", "GATEWAY", "PREDICTOR", "DRIFT", "TRAINER", "ARCHIVE", "WATCHER")
    }
    return (
        everyday
        | ports
        | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": NO_BROKER,
            "CENTINELA_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "CENTINELA_KAFKA_SASL_USERNAME": "me",
            "CENTINELA_KAFKA_SASL_PASSWORD": PASSWORD,
            "CENTINELA_KAFKA_SSL_KEY_PASSWORD": KEY_PASSWORD,
            "CENTINELA_API_KEYS": str(API_KEY.entry),
            "CENTINELA_MODEL_SIGNING_KEY": SIGNING,
            "CENTINELA_LOG_LEVEL": "DEBUG",
            "CENTINELA_LOG_FORMAT": "console",
            "CENTINELA_DATA_DIR": str(tmp_path),
            "CENTINELA_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        }
        | changes
    )


def test_the_settings_that_hold_secrets_are_known_as_such() -> None:
    named = {variables(name, field)[0] for name, field in TrainerSettings.model_fields.items() if is_secret(field)}
    assert named == {
        "CENTINELA_KAFKA_SASL_PASSWORD",
        "CENTINELA_KAFKA_SSL_KEY_PASSWORD",
        "CENTINELA_API_KEYS",
        "CENTINELA_MODEL_SIGNING_KEY",
    }


def test_services_that_start_wait_and_end_say_no_secret(tmp_path: Path) -> None:
    roles = (["centinela_ingest"], ["centinela_predictor", "gateway"])
    logs = [tmp_path / f"{n}.log" for n in range(len(roles))]
    running = []
    for role, log in zip(roles, logs, strict=True):
        with log.open("wb") as file:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", *role],
                    env=environment(tmp_path / role[-1]),
                    stdout=file,
                    stderr=file,
                    cwd=tmp_path,
                )
            )
    try:
        until(lambda: all("does not answer" in log.read_text() for log in logs), "all wait for Kafka", 150)
        for process in running:
            process.send_signal(signal.SIGTERM)
        assert [process.wait(90) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    for log in logs:
        text = log.read_text()
        assert "process.started" in text
        assert [secret for secret in SECRETS if secret in text] == []


@pytest.mark.parametrize(
    ("command", "changes", "message"),
    [
        (["centinela_ingest"], {"CENTINELA_KAFKA_SASL_USERNAME": ""}, "needs CENTINELA_KAFKA_SASL_USERNAME"),
        (["centinela_ingest"], {"CENTINELA_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "sends neither"),
        (["centinela_ingest"], {"CENTINELA_API_KEYS": f"shop:producer:{PASSWORD}"}, "the hash of shop is not one"),
        (["centinela_ingest"], {"CENTINELA_INGEST_PORT": "none"}, "CENTINELA_INGEST_PORT"),
        (["centinela_trainer", "serve"], {"CENTINELA_MODEL_SIGNING_KEY": SIGNING[:-4]}, "the signing key is not one"),
        (
            ["centinela", "topics", "check"],
            {"CENTINELA_KAFKA_SASL_MECHANISM": "none"},
            "CENTINELA_KAFKA_SASL_MECHANISM",
        ),
        (["centinela", "topics", "check"], {"CENTINELA_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "sends neither"),
    ],
)
def test_errors_of_settings_name_the_variable_and_no_secret(
    tmp_path: Path, command: list[str], changes: dict[str, str], message: str
) -> None:
    params = {"CENTINELA_PARAMS_PATH": str(CHECKOUT / "params.yaml")}
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        env=environment(tmp_path, **params, **changes),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    text = ended.stdout + ended.stderr
    assert ended.returncode != 0
    assert message in text
    assert "Traceback" not in text
    assert [secret for secret in (*SECRETS, SIGNING[:-4]) if secret in text] == []
