"""A Faust agent to compare the predictor with: ``python stream_faust.py SERVERS MODEL NAMES OUTPUT FOLDER``."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

import faust  # noqa: TID251 - what is compared with
from stream_peer import Scorer, features, verdict, wait_for_the_start

_BATCH, _WITHIN_S = 1_000, 0.2


def main(servers: str, model: str, names: str, output: str, folder: str) -> None:
    """Score ``transactions`` until killed; the windows are in memory, and lost with the process."""
    scorer = Scorer(model, names.split(","))
    app = faust.App(
        output,
        broker=f"kafka://{servers}",
        datadir=folder,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        topic_partitions=4,
        worker_redirect_stdouts=False,
        broker_request_timeout=40.0,
        broker_session_timeout=30.0,
        stream_wait_empty=False,
        topic_allow_declare=False,
    )
    source = app.topic("transactions", key_type=bytes, value_type=bytes, value_serializer="json", key_serializer="raw")
    sink = app.topic(output, key_serializer="raw", value_serializer="json")
    windows: dict[str, list[list[float]]] = defaultdict(list)

    @app.agent(source)
    async def score(stream: Any) -> None:
        async for events in stream.take(_BATCH, within=_WITHIN_S):
            rows = [features(event, windows[event["user_id"]]) for event in events]
            for event, score in zip(events, scorer.scores(rows), strict=True):
                await sink.send(key=event["user_id"].encode(), value=verdict(event, score))

    wait_for_the_start()
    faust.Worker(app, loglevel="WARN").execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
