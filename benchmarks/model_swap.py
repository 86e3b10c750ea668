"""How long a promoted model takes to answer, for each form that can serve: ``python benchmarks/model_swap.py``.

Each measurement runs in a fresh process that has loaded no model yet, as a predictor after its start. Printed are
``load_s``: ``Scorer.load`` from a bundle on disk, nothing imported before; ``swap_s``: from ``ModelPromoted`` read to
the first score by the new version, ``--after`` seconds after the start (the registry's download is a copy on this
disk).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

NAMES = ("amount", "user_count_1d", "user_mean_1d", "terminal_risk_1d")
FORMS = ("onnx", "treelite", "sklearn")


def build(folder: Path) -> None:
    """One bundle a form: boosting by ONNX, a forest fitted on missing values by treelite, flagged imputation by
    scikit-learn."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from centinela.model.export import ModelFacts, build_bundle

    random = np.random.default_rng(7)
    matrix = random.normal(size=(20_000, len(NAMES)))
    truth = (matrix[:, 0] + matrix[:, 1] > 2).astype(int)
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    kinds = {
        "onnx": HistGradientBoostingClassifier(max_iter=150, max_leaf_nodes=15, early_stopping=False, random_state=7),
        "treelite": RandomForestClassifier(100, max_depth=12, random_state=7),
        "sklearn": make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()),
    }
    for form, estimator in kinds.items():
        estimator.fit(matrix, truth)
        facts = ModelFacts(
            model_name="FraudDetector",
            model_kind=form,
            layout_id="v1:",
            feature_names=NAMES,
            threshold=0.5,
            review_threshold=0.2,
            average_precision=None,
            dataset_digest="d",
            request_id="r",
            code_commit="c",
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
        manifest = build_bundle(estimator, matrix, matrix[-5_000:], facts, folder / form)
        if manifest.backend != form:
            raise SystemExit(f"the model meant for {form} serves by {manifest.backend}")


def load(bundle: Path) -> dict[str, float]:
    """``Scorer.load`` as the first thing a process does."""
    from centinela.model.scorer import Scorer

    started = time.perf_counter()
    Scorer.load(bundle)
    return {"load_s": time.perf_counter() - started}


def swap(bundle: Path, after_s: float) -> dict[str, float]:
    """A predictor's follower, started, that reads one promotion *after_s* later."""
    from centinela.clock import SystemClock
    from centinela.events import ModelPromoted, encode
    from centinela.features.layout import FeatureLayout
    from centinela.kafka.port import Record
    from centinela.liveness.health import Health
    from centinela.model.bundle import verify
    from centinela.model.scorer import Scorer
    from centinela.testing.kafka import FakeBroker, FakeProducer
    from centinela_predictor.models.bundle_store import BundleStore
    from centinela_predictor.models.follower import ModelFollower
    from centinela_predictor.models.slot import ModelSlot

    class Events:
        def __init__(self) -> None:
            self.coming: deque[Record] = deque()

        def poll(self, timeout_s: float) -> Sequence[Record]:
            if not self.coming:
                time.sleep(timeout_s)
            return [self.coming.popleft()] if self.coming else []

        def at_end(self) -> bool:
            return True

    class Disk:
        def download(self, version: str, dest: Path) -> Path:
            return Path(shutil.copytree(bundle, dest))

    layout, events, slot, stop, clock = FeatureLayout(()), Events(), ModelSlot(), threading.Event(), SystemClock()
    follower = ModelFollower(
        events=events,
        store=BundleStore(bundle.parent / f"kept-{bundle.name}", verify, clock),
        registry=Disk(),
        slot=slot,
        load=partial(Scorer.load, layout=layout),
        producer=FakeProducer(FakeBroker()),
        health=Health("model"),
        clock=clock,
        model_name="FraudDetector",
        replica="gateway-0",
        retry_s=1.0,
    )
    thread = threading.Thread(target=follower.run, args=(stop,), daemon=True)
    thread.start()
    try:
        from centinela.model.backends import import_libraries
    except ImportError:  # a version before it: to compare with
        pass
    else:
        threading.Thread(target=import_libraries, args=(stop,), daemon=True).start()
    time.sleep(after_s)
    started = time.perf_counter()
    promoted = ModelPromoted(
        model_name="FraudDetector",
        alias="champion",
        model_version="2",
        previous_version=None,
        sequence=1,
        observed_at=clock.now(),
    )
    events.coming.append(Record("model-events", 0, 0, b"k", encode(promoted)))
    row = np.zeros((1, len(layout.names)))
    while (champion := slot.pair.champion) is None:
        time.sleep(0.002)
    champion.scorer.score(row, layout)
    taken = time.perf_counter() - started
    stop.set()
    thread.join()
    return {"swap_s": taken, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Measure every form and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--after", type=float, default=20.0, help="seconds between a predictor's start and the promotion"
    )
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "BUNDLE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, bundle = arguments.one
        print(json.dumps(load(Path(bundle)) if what == "load" else swap(Path(bundle), arguments.after)))
        return
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        for form in FORMS:
            figures: dict[str, float] = {}
            for what in ("load", "swap"):
                command = [
                    sys.executable,
                    __file__,
                    "--after",
                    str(arguments.after),
                    "--one",
                    what,
                    str(Path(folder, form)),
                ]
                figures |= json.loads(
                    subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
                )
            print(f"{form:9s}" + "  ".join(f"{name} {value:7.2f}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
