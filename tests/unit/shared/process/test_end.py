"""How a process ends that cannot go on: a clear last line, exit code 1, and soon."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

CHILD = """
import sys
import threading
import centinela.process.start as service
from centinela.errors import ProducerFenced
from centinela.settings import Settings

service.END_WITHIN_S = 0.5

def run(settings, stop):
    {body}

{how}
"""
SERVED = "sys.exit(service.serve(Settings, 'test', run))"
BARE = "run(*service.start(Settings, 'test'))"


def end(body: str, how: str) -> tuple[int, list[str]]:
    """Exit code and lines of a process that does *body*."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(body=body, how=how)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"CENTINELA_LOG_FORMAT": "json"},
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("how", [SERVED, BARE])
def test_an_error_of_ours_is_the_last_line(how: str) -> None:
    code, lines = end("raise ProducerFenced('another producer took over stream-0')", how)
    last = json.loads(lines[-1])
    assert code == 1
    assert (last["message"], last["error"], last["detail"]) == (
        "process.failed",
        "ProducerFenced",
        "another producer took over stream-0",
    )


@pytest.mark.parametrize("how", [SERVED, BARE])
def test_a_bug_is_the_last_line_with_its_traceback(how: str) -> None:
    code, lines = end("raise KeyError('a bug')", how)
    last = json.loads(lines[-1])
    assert code == 1
    assert (last["message"], last["error"]) == ("process.crashed", "KeyError")
    assert "raise KeyError('a bug')" in last["exception"] or "KeyError: 'a bug'" in last["exception"]


def test_a_client_that_hangs_does_not_keep_a_process_that_has_failed() -> None:
    hanging = "threading.Thread(target=threading.Event().wait).start(); raise ProducerFenced('stuck')"
    code, lines = end(hanging, SERVED)
    assert code == 1
    assert json.loads(lines[1])["message"] == "process.failed"
    assert any("Timeout" in line for line in lines)
