"""Logs, health and correlation as other programs meet them."""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
import structlog

from centinela.kafka.headers import event_headers, event_source, header
from centinela.liveness.health import Health
from centinela.security.keys import ApiKeys, new_key, parse
from centinela.telemetry.logging import configure_logging, hashed_user
from centinela.telemetry.tracing import trace_id, traceparent_or_new
from centinela.web.ops import OpsRoute, OpsServer
from centinela.web.server import bind


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_log_line_is_json_with_the_agreed_keys_and_the_bound_context(
    restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("predictor", format="json")
    with structlog.contextvars.bound_contextvars(trace_id="abc"):
        structlog.get_logger().info("model.promoted", model_version="3")

    [line] = _lines(capsys)
    assert line["message"] == "model.promoted"
    assert line["level"] == "info"
    assert line["function"] == "test_a_log_line_is_json_with_the_agreed_keys_and_the_bound_context"
    assert line["module"] == "test_telemetry"
    assert (line["service"], line["trace_id"], line["model_version"]) == ("predictor", "abc", "3")
    assert datetime.fromisoformat(str(line["timestamp"])).tzinfo is not None


def test_lines_of_the_standard_library_and_tracebacks_take_the_same_form(
    restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("drift", format="json")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("somebody.else").exception("it %s", "failed")

    [line] = _lines(capsys)
    assert line["message"] == "it failed"
    assert "ValueError: broken" in str(line["exception"])


def test_lines_below_the_level_are_left_out(restored_logging: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("drift", format="json", level="WARNING")
    structlog.get_logger().info("batch.committed")
    structlog.get_logger().warning("record.dead_lettered")
    assert [line["message"] for line in _lines(capsys)] == ["record.dead_lettered"]


def test_a_user_appears_as_a_keyed_hash_that_another_key_does_not_give() -> None:
    assert hashed_user(None, "k") is None
    assert hashed_user("u-42", "k") == hashed_user("u-42", "k")
    assert hashed_user("u-42", "k") != hashed_user("u-42", "other")
    assert "u-42" not in str(hashed_user("u-42", "k"))


def test_a_valid_traceparent_is_kept_and_anything_else_is_replaced() -> None:
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert traceparent_or_new(given) == given
    assert trace_id(given) == "4bf92f3577b34da6a3ce929d0e0e4736"
    for bad in (None, "", "nonsense", given.upper(), given + "\n", "00-" + "0" * 10):
        fresh = traceparent_or_new(bad)
        assert fresh != bad
        assert traceparent_or_new(fresh) == fresh


def test_record_headers_carry_cloudevents_and_the_trace() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    headers = event_headers(
        event_type="TransactionReceived.v1", event_id="tx-1", source="ingest", time=at, traceparent="tp"
    )
    assert header(headers, "ce_specversion") == "1.0"
    assert header(headers, "ce_id") == "tx-1"
    assert header(headers, "traceparent") == "tp"
    assert header(headers, "absent") is None


def test_health_is_ready_only_when_every_condition_is_met_and_says_which_are_not() -> None:
    health = Health("kafka", "model")
    health.met("kafka")
    health.wait_for("model", "no model is promoted yet")
    assert (health.live, health.ready, health.unmet()) == (True, False, {"model": "no model is promoted yet"})
    health.met("model")
    assert health.ready
    health.died("fenced")
    assert (health.live, health.ready) == (False, False)


def _get(port: int, path: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_the_ops_server_asks_for_a_key_where_a_path_needs_one() -> None:
    operator, producer = new_key("ana", "operator"), new_key("shop", "producer")
    server = OpsServer(
        Health(),
        bind("127.0.0.1", 0, "CENTINELA_WATCHER_PORT"),
        [OpsRoute("/hint", lambda: {"status": "looking"}, role="operator")],
        keys=ApiKeys(parse([str(operator.entry), str(producer.entry)])),
    )
    try:
        none, wrong, right = (
            httpx.post(
                f"http://127.0.0.1:{server.port}/hint", headers={"Authorization": f"Bearer {key}"} if key else {}
            )
            for key in (None, producer.key, operator.key)
        )
        assert [answer.status_code for answer in (none, wrong, right)] == [401, 403, 200]
        assert none.headers["www-authenticate"] == 'Bearer realm="centinela"'
        assert wrong.json() == {"error": "role_missing", "detail": "this needs a key of the role operator"}
        assert _get(server.port, "/health")[0] == 200
    finally:
        server.close()


def test_the_ops_server_answers_health_readiness_and_what_is_not_there() -> None:
    health = Health("kafka")
    server = OpsServer(
        health,
        bind("127.0.0.1", 0, "CENTINELA_DRIFT_PORT"),
        [OpsRoute("/drift", lambda: {"state": "stable"})],
        model_loaded=lambda: True,
    )
    try:
        assert _get(server.port, "/health") == (
            200,
            {"status": "healthy", "model_loaded": True, "waiting_for": {"kafka": "not there yet"}},
        )
        assert _get(server.port, "/ready") == (503, {"ready": False, "waiting_for": {"kafka": "not there yet"}})
        health.met("kafka")
        assert _get(server.port, "/ready") == (200, {"ready": True, "waiting_for": {}})
        assert _get(server.port, "/drift") == (200, {"state": "stable"})
        assert _get(server.port, "/nothing")[0] == 404
        health.died("stuck")
        assert _get(server.port, "/health")[0] == 503
    finally:
        server.close()


def test_every_process_answers_head_like_get_without_a_body() -> None:
    health = Health("kafka")
    server = OpsServer(health, bind("127.0.0.1", 0, "CENTINELA_TRAINER_PORT"), [OpsRoute("/hint", dict)])
    try:
        for state in ("waiting", "ready"):
            for path in ("/health", "/ready", "/metrics"):
                get, head = (httpx.request(m, f"http://127.0.0.1:{server.port}{path}") for m in ("GET", "HEAD"))
                assert (head.status_code, head.content) == (get.status_code, b""), (state, path)
                assert head.headers["content-type"] == get.headers["content-type"]
            health.met("kafka")
        assert httpx.head(f"http://127.0.0.1:{server.port}/hint").status_code == 405
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "source"),
    [(("drift",), "centinela/drift"), (("predictor", "stream"), "centinela/predictor/stream")],
)
def test_the_source_of_an_event_names_service_and_role(arguments: tuple[str, ...], source: str) -> None:
    assert event_source(*arguments) == source
