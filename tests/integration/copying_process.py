"""A process for ``test_consumer_loop_kafka``: copies a topic to another, exactly once, until it is told to stop or
dies.

Arguments: bootstrap servers, client, source topic, sink topic, group.
"""

from __future__ import annotations

import signal
import sys
import threading
import time

from centinela.consuming.handler import Outcome
from centinela.consuming.loop import ConsumerLoop
from centinela.consuming.options import LoopOptions
from centinela.kafka import connect
from centinela.kafka.port import Outgoing
from centinela.liveness.health import Health
from centinela.settings import Settings

PACE_S = 0.01


def main(servers: str, client: str, source: str, sink: str, group: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = Settings(kafka_bootstrap_servers=servers)
    consumer = connect.consumer(settings, group=group, client=client, instance_id=group)  # type: ignore[arg-type]
    producer = connect.transactional_producer(settings, transactional_id=group, client=client)  # type: ignore[arg-type]

    def copy(records: object) -> Outcome:
        time.sleep(PACE_S)
        return Outcome([Outgoing(sink, r.value, r.key, partition=r.partition) for r in records])  # type: ignore[attr-defined]

    ConsumerLoop(
        consumer, producer, copy, topics=[source], health=Health("kafka"), stop=stop, options=LoopOptions(batch=50)
    ).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
