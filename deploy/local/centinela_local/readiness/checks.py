"""Whether a process of the stack is ready, and what it waits for."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """An HTTP status with its JSON body ({} where it is none)."""

    status: int
    body: dict[str, Any]


def ask(url: str, timeout_s: float = 2.0) -> Answer | None:
    """The answer of *url*, whatever its status; None where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:
            return Answer(response.status, _json(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _json(error.read()))
    except (OSError, http.client.HTTPException):
        return None


def waits_for(state: str, answer: Answer | None, *, model_expected: bool) -> str | None:
    """What stands between a process and readiness, in words; None where it is ready.

    Args:
        state: What supervisor says (RUNNING, ...).
        answer: Of its readiness path.
        model_expected: False before the first model is promoted: waiting for one is then as ready as can be.
    """
    if state == "BACKOFF":
        return "ended soon after its start, and waits before the next"
    if state != "RUNNING":
        return f"is {state.lower()}"
    if answer is None:
        return "does not answer yet"
    if answer.status == 200:
        return None
    unmet = dict(answer.body.get("waiting_for") or {})
    if unmet and not model_expected:
        unmet.pop("model", None)
        if not unmet:
            return None
    if unmet:
        return "; ".join(f"waits for {name} ({reason})" for name, reason in unmet.items())
    return f"answers {answer.status}"


def _json(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
