"""Every service refuses to start where others could reach it and no keys are set, before it listens."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "command",
    [
        ["centinela_ingest"],
        ["centinela_predictor", "gateway"],
        ["centinela_registry_watcher"],
    ],
)
def test_a_service_that_would_be_open_to_others_ends_with_one_clear_line(command: list[str]) -> None:
    exposed = {**os.environ, "CENTINELA_OPS_HOST": "0.0.0.0", "CENTINELA_LOG_FORMAT": "json"}  # noqa: S104
    ended = subprocess.run(
        [sys.executable, "-m", *command], env=exposed, capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith("centinela: CENTINELA_OPS_HOST=0.0.0.0 is reachable by others, and no API keys are set")
