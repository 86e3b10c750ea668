"""A broker that trusts nobody: TLS, SCRAM and ACLs, with a user of the least rights for each service.

A transaction goes its way from ingest through the stream into the archive, drift takes part, operators do their work;
and who has no rights, a wrong password or no trust in the broker is refused clearly, and ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from centinela.errors import AccessRefused
from centinela.kafka import connect
from centinela.kafka.connect import Client
from centinela.kafka.port import Outgoing
from centinela.operations import acls
from centinela.settings import Settings
from centinela.topics import PREDICTIONS, TRANSACTIONS
from centinela_local.broker.jars import can_run_broker
from centinela_local.processes.ports import free_port
from tests.support.secured_broker import ADMIN, ADMIN_PASSWORD, SecuredBroker
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(600)
PORTS = ("ingest", "predictor", "drift", "archive")
STRANGER = "stranger"
ROLES = {
    "ingest": ["centinela_ingest"],
    "stream": ["centinela_predictor", "stream"],
    "archive": ["centinela_trainer", "archive"],
    "drift": ["centinela_drift"],
}
TRANSACTION = {
    "transaction_id": "t-1",
    "occurred_at": "2025-01-03T10:00:00Z",
    "amount": 10,
    "user_id": "1",
    "terminal_id": "1",
}
DAYS = ("--days", "2", "--customers", "20", "--terminals", "40")


def password(user: str) -> str:
    return f"{user}-password-not-to-be-seen"


class Secured:
    """The broker, and processes that connect to it as one user or another."""

    def __init__(self, folder: Path, broker: SecuredBroker) -> None:
        self.folder, self.broker = folder, broker
        self._everyday = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CENTINELA_", "KAFKA_", "MLFLOW_"))
        }
        self._ports = {name: free_port() for name in PORTS}

    def environment(self, user: str, secret: str | None = None) -> dict[str, str]:
        ports = {f"CENTINELA_{name.upper()}_PORT": str(port) for name, port in self._ports.items()}
        return (
            self._everyday
            | ports
            | self.broker.environment(user, secret or password(user))
            | {
                "CENTINELA_DATA_DIR": str(self.folder / "data"),
                "CENTINELA_MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
                "CENTINELA_LOG_FORMAT": "json",
                "CENTINELA_ATTRIBUTES": "[]",
                "CENTINELA_PARTITIONS": "2",
                "CENTINELA_IDLE_AFTER_S": "0.5",
                "CENTINELA_ARCHIVE_FLUSH_S": "0.2",
                "OMP_NUM_THREADS": "1",
            }
        )

    def settings(self, user: str, secret: str | None = None) -> Settings:
        given = self.broker.environment(user, secret or password(user))
        return Settings(**{name.removeprefix("CENTINELA_").lower(): value for name, value in given.items()})  # type: ignore[arg-type]

    def run(self, *command: str, user: str, secret: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "centinela", *command],
            env=self.environment(user, secret),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextmanager
    def running(self, *roles: str) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        processes = {}
        for role in roles:
            with self.log(role).open("wb") as log:
                processes[role] = subprocess.Popen(
                    [sys.executable, "-m", *ROLES[role]],
                    env=self.environment(f"centinela-{role}"),
                    stdout=log,
                    stderr=log,
                )
        try:
            yield processes
        finally:
            for process in processes.values():
                process.kill()
                process.wait()

    def log(self, role: str) -> Path:
        return self.folder / f"{role}.log"

    def ask(self, name: str, path: str, body: object = None) -> int:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{self._ports[name]}{path}", data), timeout=10
            ) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    assert can_run_broker(), "this needs the embedded broker: a JDK and Maven"
    folder = tmp_path_factory.mktemp("secured")
    users = [*(f"centinela-{service}" for service in acls.RIGHTS), STRANGER]
    broker = SecuredBroker(folder / "kafka", {user: password(user) for user in users})
    broker.start()
    try:
        made = Secured(folder, broker)
        acls.create(
            made.settings(ADMIN, ADMIN_PASSWORD), {service: f"User:centinela-{service}" for service in acls.RIGHTS}
        )
        done = made.run("topics", "create", user="centinela-operator")
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        broker.stop()


def test_with_its_own_rights_each_service_does_its_work(secured: Secured) -> None:
    with secured.running("ingest", "stream", "archive", "drift") as processes:
        done = secured.run("simulate", *DAYS, "--history", user="centinela-operator")
        assert done.returncode == 0, done.stderr
        archived = secured.folder / "data" / "archive" / "predictions"
        until(
            lambda: len({path.parent for path in archived.rglob("*.parquet")}) == 2,
            "verdicts of both days are archived",
            200,
        )
        until(lambda: secured.ask("ingest", "/ready") == 200, "ingest reaches Kafka", 120)
        assert secured.ask("ingest", "/transactions", TRANSACTION) == 202
        until(lambda: secured.ask("drift", "/ready") == 200, "drift has joined its group", 120)
        assert {role: process.poll() for role, process in processes.items()} == dict.fromkeys(processes)
    checked = secured.run("audit", user="centinela-operator")
    assert "dead letters" in checked.stdout, checked.stderr
    kept = [path for path in (secured.folder / "data").rglob("*") if path.is_file()]
    assert kept
    assert {path.stat().st_mode & 0o007 for path in kept} == {0}, "others may not read what holds transactions"
    for role in processes:
        text = secured.log(role).read_text()
        assert "AccessRefused" not in text
        assert "password-not-to-be-seen" not in text


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_who_has_no_rights_is_told_so_at_once(secured: Secured, client: Client) -> None:
    settings = secured.settings(STRANGER)
    reader = connect.consumer(settings, group="anything", client=client)
    plain, transactional = (
        connect.producer(settings, client=client),
        connect.transactional_producer(settings, transactional_id="anything", client=client),
    )
    tries: list[Callable[[], object]] = [
        lambda: reader.partitions_of(PREDICTIONS.name),
        lambda: plain.send(Outgoing(TRANSACTIONS.name, b"k", b"v")).wait(10),
        transactional.init,
    ]
    try:
        for attempt in tries:
            with pytest.raises(AccessRefused, match="does not allow this to the client's user"):
                attempt()
    finally:
        for part in (reader, plain, transactional):
            part.close()


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_systems_of_others_write_transactions_and_read_predictions(secured: Secured, client: Client) -> None:
    producer = connect.producer(secured.settings("centinela-producer"), client=client)
    reader = connect.consumer(secured.settings("centinela-reader"), group=f"reader-{client}", client=client)
    try:
        producer.send(Outgoing(TRANSACTIONS.name, b"{}", b"k")).wait(10)
        assert reader.partitions_of(PREDICTIONS.name)
        reader.subscribe([PREDICTIONS.name])
        until(lambda: bool(reader.poll(0.5, 10) or reader.assignment()), "the reader is in its group")
    finally:
        producer.close()
        reader.close()


def test_a_reader_cannot_write_and_a_writer_cannot_read(secured: Secured) -> None:
    archive, ingest = secured.settings("centinela-archive"), secured.settings("centinela-ingest")
    writer, reader = connect.producer(archive), connect.consumer(ingest, group=None)
    try:
        with pytest.raises(AccessRefused, match="TopicAuthorizationFailed"):
            writer.send(Outgoing(PREDICTIONS.name, b"k", b"v")).wait(10)
        reader.assign(reader.partitions_of(TRANSACTIONS.name))
        with pytest.raises(AccessRefused, match="TopicAuthorizationFailed"):
            until(lambda: bool(reader.poll(0.5, 10)), "records, which it has no right to")
    finally:
        writer.close()
        reader.close()


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_wrong_password_is_a_refusal_and_not_an_outage(secured: Secured, client: Client) -> None:
    reader = connect.consumer(secured.settings(STRANGER, "wrong"), group=None, client=client)
    try:
        with pytest.raises(AccessRefused, match="invalid credentials"):
            reader.partitions_of(TRANSACTIONS.name)
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("command", "error"), [(["centinela_drift"], "AccessRefused"), (["centinela_predictor", "gateway"], "Died")]
)
def test_a_service_that_is_refused_ends_with_the_reason(secured: Secured, command: list[str], error: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=secured.environment(STRANGER)
        | {
            "CENTINELA_DATA_DIR": str(secured.folder / "other"),
            "CENTINELA_GATEWAY_PORT": "0",
        },
    )
    assert ended.returncode == 1
    last = json.loads(ended.stderr.splitlines()[-1])
    assert (last["message"], last["error"]) == ("process.failed", error)
    assert "AccessRefused" in (last["error"], *last["detail"].split(": "))
    assert "`centinela acls list`" in last["detail"]
    assert password(STRANGER) not in ended.stdout + ended.stderr
