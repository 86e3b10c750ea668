"""The service and the commands as a user runs them, on a Kafka of their own that comes and goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from centinela.commands.main import main
from centinela.consuming.table_reader import TableReader
from centinela.kafka import connect
from centinela.kafka.headers import header
from centinela.settings import Settings
from centinela_local.broker.embedded import answers
from centinela_local.processes.ports import free_port
from centinela_local.testing.temporary_kafka import TemporaryBroker
from tests.support.held_open import HeldOpen
from tests.support.waiting import until

GOOD = {"user_id": "u-1", "occurred_at": "2026-03-01T10:15:30Z", "amount": 3.5}


class Api:
    """``python -m centinela_ingest`` on a free port."""

    def __init__(self, bootstrap_servers: str, log: Path) -> None:
        self.port = port = free_port()
        self.log = log
        environment = os.environ | {
            "CENTINELA_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "CENTINELA_INGEST_PORT": str(port),
            "CENTINELA_LOG_FORMAT": "json",
            "CENTINELA_INGEST_DEADLINE_S": "8",
        }
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "centinela_ingest"], env=environment, stdout=stream, stderr=stream
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def status(self, path: str) -> int:
        """The status of a GET, 0 while nothing listens."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def post(self, transaction_id: str) -> httpx.Response:
        return self.client.post("/transactions", json=GOOD | {"transaction_id": transaction_id})

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporaryBroker]:
    """A Kafka of this module's own, not running yet."""
    broker = TemporaryBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture
def api(own_broker: TemporaryBroker, tmp_path: Path) -> Iterator[Api]:
    service = Api(own_broker.bootstrap_servers, tmp_path / "ingest.log")
    yield service
    service.client.close()
    service.process.kill()
    service.process.wait(20)


def logged_ids(settings: Settings) -> list[str | None]:
    """The transaction ids in the log, by the other client."""
    reader = TableReader(connect.consumer(settings, group=None, client="confluent"), ["transactions"])
    try:
        return [header(record.headers, "ce_id") for record in reader.read_to_end()]
    finally:
        reader.close()


def test_the_api_waits_for_kafka_refuses_while_it_is_away_and_goes_on_when_it_is_back(
    api: Api, own_broker: TemporaryBroker
) -> None:
    settings = Settings(kafka_bootstrap_servers=own_broker.bootstrap_servers)
    until(lambda: api.status("/health") == 200, "the process lives without Kafka")
    assert api.status("/ready") == 503
    refused = api.post("before")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")

    until(lambda: '"dependency.became_unavailable"' in api.log.read_text(), "the log says what is waited for")

    own_broker.start()
    connect.topic_admin(settings).create()
    until(lambda: api.status("/ready") == 200, "ready once Kafka is there")
    taken = {f"tx-{n}": api.post(f"tx-{n}").status_code for n in range(20)}
    assert set(taken.values()) == {202}

    own_broker.stop()
    while_unavailable = api.post("unavailable")
    assert while_unavailable.status_code == 503
    assert while_unavailable.elapsed.total_seconds() < 15
    until(lambda: api.status("/ready") == 503, "the outage shows")

    own_broker.start()
    until(lambda: api.status("/ready") == 200, "ready again")
    until(lambda: api.post("after").status_code == 202, "taken again")
    assert api.end() == 0
    assert taken.keys() | {"after"} <= set(logged_ids(settings))
    log = api.log.read_text()
    assert log.count('"dependency.became_unavailable"') == 2, "one line for each outage"
    assert "u-1" not in log


def test_requests_held_open_over_a_sigterm_are_answered_and_what_was_acknowledged_is_in_kafka(
    api: Api, own_broker: TemporaryBroker
) -> None:
    if not answers(own_broker.bootstrap_servers):
        own_broker.start()
    settings = Settings(kafka_bootstrap_servers=own_broker.bootstrap_servers)
    connect.topic_admin(settings).create()
    until(lambda: api.status("/ready") == 200, "ready")
    ids = [f"held-{n}" for n in range(32)]
    held = [HeldOpen(api.port, "/transactions", GOOD | {"transaction_id": transaction_id}) for transaction_id in ids]
    assert api.post("before").status_code == 202
    in_flight = '\ncentinela_requests_in_flight{service="ingest"} 32.0'
    until(lambda: in_flight in api.client.get("/metrics").text, "every request is being served")

    api.process.send_signal(signal.SIGTERM)
    until(lambda: api.status("/health") == 0, "no new connection is taken")
    found = [request.finish() for request in held]

    assert [answer.split("\r\n", 1)[0] for answer in found] == ["HTTP/1.1 202 Accepted"] * len(held)
    assert all(transaction_id in answer for transaction_id, answer in zip(ids, found, strict=True))
    assert api.process.wait(10) == 0
    assert {"before", *ids} <= set(logged_ids(settings))


def test_the_commands_tell_what_they_sent_and_what_they_could_not(
    own_broker: TemporaryBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not answers(own_broker.bootstrap_servers):
        own_broker.start()
    settings = Settings(kafka_bootstrap_servers=own_broker.bootstrap_servers)
    connect.topic_admin(settings).create()
    monkeypatch.setenv("CENTINELA_KAFKA_BOOTSTRAP_SERVERS", own_broker.bootstrap_servers)

    def centinela(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["centinela", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    file, mapping = tmp_path / "mine.csv", tmp_path / "mine.yaml"
    file.write_text(
        "when,card,value\n2025-01-01T00:00:00Z,c1,5\n2025-01-01T00:00:01Z,c1,five\n2025-01-01T00:00:02Z,c2,5\n"
    )
    mapping.write_text("columns: {when: occurred_at, card: user_id, value: amount}\nid_prefix: mine-\n")

    code, out, err = centinela("replay", str(file), "--mapping", str(mapping))
    assert code == 0
    assert "2 transactions" in out
    assert "1 rejected rows in transactions-dlq" in out
    assert "row 2 rejected: invalid_field: amount: not a number" in err
    assert {"mine-000000001", "mine-000000003"} <= set(logged_ids(settings))

    code, out, err = centinela("replay", str(file))
    assert (code, out) == (2, "")
    assert "none of the known layouts" in err

    code, _, err = centinela("simulate", "--days", "2", "--start", "2999-01-01")
    assert code == 2
    assert "future" in err

    code, out, _ = centinela("simulate", "--days", "2", "--customers", "50", "--terminals", "100", "--seed", "9")
    assert code == 0
    assert sum(i is not None and i.startswith("s9-") for i in logged_ids(settings)) > 100
