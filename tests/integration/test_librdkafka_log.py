"""What librdkafka says of unavailable brokers goes into the structured log or nowhere, never raw to standard
error."""

from __future__ import annotations

import json
import subprocess
import sys

CLIENTS_ON_NOTHING = """
import sys, time
from centinela.errors import CentinelaError
from centinela.kafka import connect
from centinela.kafka.port import Outgoing
from centinela.settings import Settings
from centinela.telemetry.logging import configure_logging

settings = Settings(kafka_bootstrap_servers="127.0.0.1:9", log_format="json", log_level=sys.argv[1])
if sys.argv[2] == "configured":
    configure_logging("test", level=settings.log_level, format=settings.log_format)
reader = connect.consumer(settings, group="g", client="confluent")
reader.subscribe(["t"])
writer = connect.producer(settings, client="confluent")
transactions = connect.transactional_producer(settings, transactional_id="t", client="confluent")
end = time.monotonic() + 1.0
while time.monotonic() < end:
    for call in (lambda: reader.poll(0.05, 1), lambda: writer.send(Outgoing("t", b"v")).wait(0.05), transactions.begin):
        try:
            call()
        except CentinelaError:
            pass
"""


def stderr_of(level: str, configured: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", CLIENTS_ON_NOTHING, level, configured],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.stderr.splitlines()


def test_a_service_logs_the_clients_lines_as_json_when_asked_for_detail() -> None:
    lines = [json.loads(line) for line in stderr_of("DEBUG", "configured")]
    assert any("Connection refused" in line["message"] for line in lines)


def test_a_service_tells_an_outage_in_its_own_words_only() -> None:
    assert stderr_of("INFO", "configured") == []


def test_a_command_that_configures_no_logs_prints_none_of_the_clients() -> None:
    assert stderr_of("INFO", "not configured") == []
