"""Records as producers write them, and what each becomes: an event, or a dead letter with its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from centinela import schemas
from centinela.codec import EVENT_TIMES, Decoder, time_fault
from centinela.errors import InvalidRecord
from centinela.events import Event, type_name

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
EVENTS: dict[str, type[Event]] = {type_name(kind): kind for kind in schemas.event_types()}
BEFORE, FUTURE, INVALID = "time_before_1970", "time_in_future", "invalid_field"

TIMES: dict[str, tuple[str, ...]] = {
    "TransactionReceived": ("occurred_at", "verdict.scored_at"),
    "LabelReported": ("occurred_at", "reported_at"),
    "TransactionScored": ("occurred_at", "scored_at"),
    "FeaturePane": ("start", "end", "watermark"),
    "DriftReported": ("start", "end", "performance.start", "performance.end"),
    "RetrainRequested": ("as_of",),
    "ModelPromoted": ("observed_at",),
    "ModelLoaded": ("loaded_at",),
    "ModelRejected": ("rejected_at",),
    "TrainingCompleted": ("completed_at",),
}
"""Every time of every event. Of those in ``EVENT_TIMES`` none may be more than a day ahead of the clock."""


class Time(NamedTuple):
    """A time as text, in any field of any event: the instant, or the reason of the dead letter."""

    text: str
    expected: datetime | str


ANY_TIME = (
    Time("2025-02-07T12:00:00Z", datetime(2025, 2, 7, 12, tzinfo=UTC)),
    Time("2025-02-07T12:00:00+05:30", datetime(2025, 2, 7, 6, 30, tzinfo=UTC)),
    Time("2025-02-07T12:00:00.123456789Z", datetime(2025, 2, 7, 12, 0, 0, 123457, tzinfo=UTC)),
    Time("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
    Time("1970-01-01T23:58:59+23:59", BEFORE),
    Time("1969-12-31T23:59:59Z", BEFORE),
    Time("0001-01-01T00:00:00Z", BEFORE),
    Time("0001-01-01T00:00:00+23:59", BEFORE),
    Time("2200-01-01T00:00:00Z", FUTURE),
    Time("2262-04-12T00:00:00Z", FUTURE),
    Time("9999-12-31T23:59:59.999999Z", FUTURE),
    Time("9999-12-31T23:59:59-23:59", FUTURE),
    Time("2025-02-07T12:00:00", INVALID),
    Time("2025-02-07", INVALID),
    Time("2025-02-30T12:00:00Z", INVALID),
    Time("yesterday", INVALID),
    Time("", INVALID),
)


class Row(NamedTuple):
    """*changes* to the example of *event*, written at *written_ms* by Kafka's time stamp: the event, or the dead letter
    whose reason and detail begin with *refusal*."""

    name: str
    event: str
    changes: Mapping[str, object]
    refusal: str | None
    written_ms: int = 0


WRITTEN = 1_795_953_600_000  # 2026-11-29T12:00Z
OCCURRED = {"occurred_at": "2026-11-29T11:00:00Z"}
ROWS = (
    Row("an hour ahead of the clock", "TransactionReceived", {"occurred_at": "2026-11-29T13:00:00Z"}, None),
    Row(
        "more than a day ahead",
        "TransactionReceived",
        {"occurred_at": "2026-11-30T13:00:00Z"},
        "time_in_future: occurred_at 2026-11-30T13:00:00+00:00 is more than a day ahead of 2026-11-29T12:00:00+00:00",
    ),
    Row(
        "before 1970",
        "TransactionReceived",
        {"occurred_at": "1969-12-31T00:00:00Z"},
        "time_before_1970: occurred_at 1969-12-31T00:00:00+00:00 is before 1970",
    ),
    Row(
        "a report of 2099",
        "LabelReported",
        {"reported_at": "2099-01-01T00:00:00Z"},
        "time_in_future: reported_at 2099-01-01",
    ),
    Row(
        "a label on 2099",
        "LabelReported",
        {"occurred_at": "2099-01-01T00:00:00Z"},
        "time_in_future: occurred_at 2099-01-01",
    ),
    Row(
        "a verdict of 2099",
        "TransactionScored",
        {"occurred_at": "2099-01-01T00:00:00Z"},
        "time_in_future: occurred_at 2099-01-01",
    ),
    Row("a pane of 2099", "FeaturePane", {"start": "2099-01-01T00:00:00Z"}, "time_in_future: start 2099-01-01"),
    Row(
        "a watermark of 2099",
        "FeaturePane",
        {"watermark": "2099-01-01T00:00:00Z"},
        "time_in_future: watermark 2099-01-01",
    ),
    Row("Kafka's time stamp in milliseconds", "TransactionReceived", OCCURRED, None, WRITTEN),
    Row(
        "Kafka's time stamp in seconds",
        "TransactionReceived",
        OCCURRED,
        "time_in_future: occurred_at 2026-11-29T11:00:00+00:00 is more than a day ahead of 1970-01-21T18:52:33+00:00,"
        " the record's time stamp in Kafka: producers give it in milliseconds",
        WRITTEN // 1_000,
    ),
    Row("Kafka's time stamp in microseconds", "TransactionReceived", OCCURRED, None, WRITTEN * 1_000),
    Row("Kafka's time stamp in nanoseconds", "TransactionReceived", OCCURRED, None, WRITTEN * 1_000_000),
    Row("the largest time stamp that Kafka has", "TransactionReceived", OCCURRED, None, 2**63 - 1),
    Row("no time stamp", "TransactionReceived", OCCURRED, None, -1),
    Row(
        "a report of 2099, with Kafka's time stamp in microseconds",
        "LabelReported",
        {"reported_at": "2099-01-01T00:00:00Z"},
        "time_in_future: reported_at 2099-01-01T00:00:00+00:00 is more than a day ahead of 2026-11-29T12:00:00",
        WRITTEN * 1_000,
    ),
)


def value_of(event: str, changes: Mapping[str, object]) -> bytes:
    """The example of *event* with *changes*, by name; a name with a dot is in a struct of the event."""
    body = json.loads(schemas.example(EVENTS[event]))
    for name, value in changes.items():
        outer, _, inner = name.rpartition(".")
        (body.setdefault(outer, _STRUCTS[outer]) if outer else body)[inner] = value
    return json.dumps(body).encode()


_STRUCTS: dict[str, dict[str, object]] = {
    "verdict": {"origin": "history", "decision": "approve", "variant": "none"},
    "performance": {"start": "2025-01-01T00:00:00Z", "end": "2025-01-02T00:00:00Z", "count": 1, "frauds": 0},
}


@pytest.mark.parametrize("time", ANY_TIME, ids=lambda time: time.text)
@pytest.mark.parametrize("event", EVENTS)
def test_a_time_in_any_field_is_an_instant_or_a_dead_letter(event: str, time: Time) -> None:
    decoder = Decoder(EVENTS[event])
    for field in TIMES[event]:
        value = value_of(event, {field: time.text})
        [decoded] = decoder.decode_many([value])
        if isinstance(time.expected, str):
            assert isinstance(decoded, InvalidRecord)
            assert decoded.reason == time.expected
            assert field.rpartition(".")[2] in decoded.detail
        else:
            found: object = decoded
            for part in field.split("."):
                found = getattr(found, part)
            assert found == time.expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.event}: {row.name}")
def test_a_record_is_its_event_or_a_dead_letter(row: Row) -> None:
    fault: InvalidRecord | None
    try:
        fault = time_fault(Decoder(EVENTS[row.event]).decode(value_of(row.event, row.changes)), row.written_ms, NOW)
    except InvalidRecord as invalid:
        fault = invalid
    if row.refusal is None:
        assert fault is None
    else:
        assert str(fault).startswith(row.refusal)


def test_the_tables_know_every_time_of_every_event() -> None:
    for name, kind in EVENTS.items():
        definitions = schemas.schema(kind)["$defs"]
        assert TIMES[name] == tuple(_times_in(definitions[name], definitions, ""))
        assert set(EVENT_TIMES.get(kind, ())) <= set(TIMES[name])


def _times_in(definition: dict[str, object], definitions: dict[str, dict[str, object]], outer: str) -> list[str]:
    """The fields of *definition*, a JSON Schema, that are times."""
    found = []
    properties: dict[str, dict[str, object]] = definition["properties"]  # type: ignore[assignment]
    for name, schema in properties.items():
        for part in (schema, *schema.get("anyOf", ())):  # type: ignore[misc]
            if part.get("format") == "date-time":
                found.append(outer + name)
            elif "$ref" in part:
                found += _times_in(definitions[part["$ref"].rpartition("/")[2]], definitions, f"{outer}{name}.")
    return found
