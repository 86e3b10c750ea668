"""A Quix Streams application to compare the predictor with.

``python stream_quix.py SERVERS MODEL NAMES GUARANTEE OUTPUT FOLDER``.
"""

from __future__ import annotations

import sys
from typing import Any

from quixstreams import Application
from stream_peer import Scorer, features, verdict, wait_for_the_start


def main(servers: str, model: str, names: str, guarantee: Any, output: str, folder: str) -> None:
    """Score ``transactions`` until killed; the window is kept in Quix's own state (RocksDB with a changelog topic)."""
    scorer = Scorer(model, names.split(","))
    app = Application(
        servers,
        consumer_group=output,
        auto_offset_reset="earliest",
        processing_guarantee=guarantee,
        state_dir=folder,
        loglevel="WARNING",
    )

    def score(event: dict[str, Any], state: Any) -> dict[str, Any]:
        window = state.get("window", [])
        row = features(event, window)
        state.set("window", window)
        scored: dict[str, Any] = verdict(event, scorer.scores([row])[0])
        return scored

    frame = app.dataframe(app.topic("transactions", value_deserializer="json"))
    frame.apply(score, stateful=True).to_topic(app.topic(output, value_serializer="json"))
    wait_for_the_start()
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
