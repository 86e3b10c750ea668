"""What MLflow's client loads of other packages."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys
import centinela_trainer.mlflow_tracking
from mlflow.tracking.request_header.registry import resolve_request_headers
print(sorted(resolve_request_headers()), "feast" in sys.modules)
"""


def test_feast_neither_loads_with_the_client_nor_adds_to_its_headers() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "['User-Agent', 'X-MLflow-Client-Version'] False"
