"""Feast in a process leaves that process's metrics, and those of its children, as they are."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import os
import centinela.featurestore
from prometheus_client import CollectorRegistry, Counter, values
assert values.ValueClass.__name__ == "MutexValue", values.ValueClass
import feast.feature_store
from feast.metrics import _config
print(sorted(name for name in os.environ if name.startswith("PROMETHEUS_MULTIPROC")))
"""


def test_metrics_stay_this_processs_own_and_nothing_leaks_to_its_children() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_")}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr
