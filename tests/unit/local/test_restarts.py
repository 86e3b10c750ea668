"""A process that keeps ending is started again after longer and longer pauses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from centinela_local.processes.restarts import HEALTHY_S, Start, StartFile, pause_before


def pauses(lived_s: list[float]) -> list[float]:
    """The pause before each start of a process that lives so long each time."""
    now_s, last, found = 1_000.0, None, list[float]()
    for lives in lived_s:
        delay_s = pause_before(last, now_s)
        found.append(delay_s)
        last = Start(now_s + delay_s, delay_s)
        now_s = last.at_s + lives
    return found


def test_pauses_double_up_to_a_minute() -> None:
    assert pauses([4.0] * 10) == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_healthy_spell_ends_the_pauses() -> None:
    assert pauses([4.0, 4.0, 4.0, HEALTHY_S, 4.0, 4.0]) == [0, 1, 2, 4, 0, 1]


def test_a_process_that_is_killed_in_its_pause_does_not_escape_it() -> None:
    assert pause_before(Start(108.0, 8.0), now_s=103.0) == 16


def test_a_start_before_the_machine_was_booted_again_does_not_count() -> None:
    assert pause_before(Start(90_000.0, 60.0), now_s=40.0) == 0


@pytest.mark.parametrize("content", [None, "", "[", "[1]", "7", '["a", 1]', "{}"])
def test_a_file_that_cannot_be_read_is_no_history(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "drift.start.json").write_text(content)
    assert StartFile(tmp_path, "drift").read() is None


def test_a_pause_is_pending_until_it_is_over_or_a_person_starts_the_process(tmp_path: Path) -> None:
    file = StartFile(tmp_path, "drift")
    assert file.pending_s() == 0
    file.write(Start(time.monotonic() - 1, 8.0))
    assert file.pending_s() == 0
    file.write(Start(time.monotonic() + 600, 800.0))
    assert 0 < file.pending_s() <= 600
    file.forget()
    assert (file.pending_s(), file.read()) == (0, None)


def test_what_ends_at_once_pauses_before_its_next_start_and_logs_it(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "raise SystemExit('no such setting')"]
    listing = tmp_path / "processes.json"
    listing.write_text(json.dumps({"drift": {"command": command, "nice": 0, "environment": {}}}))

    def start() -> str:
        spawn = [sys.executable, "-m", "centinela_local.processes.exec_child", str(listing), "drift"]
        return subprocess.run(spawn, capture_output=True, text=True, check=False).stderr

    assert start() == "no such setting\n"
    log, _, end = start().partition("\n")
    said = json.loads(log)
    assert (said["message"], said["service"], said["delay_s"]) == ("process.restart_delayed", "drift", 1.0)
    assert end == "no such setting\n"
