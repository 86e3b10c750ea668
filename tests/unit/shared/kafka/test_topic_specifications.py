"""The catalogue as topics: how many partitions, how safe, and what a check reports."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from centinela.commands.topics import app, offsets_warning
from centinela.kafka.topic_admin import TopicFinding, TopicSpec, TopicState, compare, specifications
from centinela.settings import Settings
from centinela.topics import CATALOGUE, OFFSETS_RETENTION_MINUTES, WITH_DLQ

SPEC = TopicSpec("transactions", 4, 3, {"retention.ms": "1000", "min.insync.replicas": "2"})


def by_name(**fields: int) -> dict[str, TopicSpec]:
    return {spec.name: spec for spec in specifications(Settings(**fields))}  # type: ignore[arg-type]


def test_every_topic_and_every_dead_letter_topic_is_specified_once() -> None:
    assert sorted(by_name()) == sorted([t.name for t in CATALOGUE] + [t.dlq for t in WITH_DLQ])


def test_data_topics_follow_the_settings_and_dead_letters_their_topic() -> None:
    specs = by_name(partitions=12)

    assert [
        specs[name].partitions for name in ("transactions", "transactions-dlq", "predictions", "terminal-activity")
    ] == [12] * 4
    assert [specs[name].partitions for name in ("model-events", "model-events-dlq")] == [1, 1]


def test_three_replicas_take_writes_while_two_are_there() -> None:
    assert {s.config["min.insync.replicas"] for s in by_name(replication_factor=3).values()} == {"2"}
    assert {s.config["min.insync.replicas"] for s in by_name(replication_factor=2).values()} == {"1"}
    assert {s.replication for s in by_name(replication_factor=3).values()} == {3}


def test_records_that_others_write_are_stamped_by_the_broker() -> None:
    stamped = {name for name, spec in by_name().items() if spec.config.get("message.timestamp.type") == "LogAppendTime"}
    assert stamped == {"transactions", "labels"}


def test_model_events_are_compacted_and_their_dead_letters_are_not() -> None:
    specs = by_name()

    assert specs["model-events"].config["cleanup.policy"] == "compact"
    assert specs["model-events-dlq"].config["cleanup.policy"] == "delete"


def test_a_check_names_what_is_missing_and_what_differs() -> None:
    as_it_should_be = TopicState(4, 3, {"retention.ms": "1000", "min.insync.replicas": "2"})
    otherwise = TopicState(2, 1, {"retention.ms": "5"})

    assert compare([SPEC], {}) == [TopicFinding("transactions", "missing")]
    assert compare([SPEC], {"transactions": as_it_should_be}) == [TopicFinding("transactions", "ok")]
    assert compare([SPEC], {"transactions": otherwise}) == [
        TopicFinding(
            "transactions",
            "differs",
            ("2 partitions, not 4", "1 replicas, not 3", "min.insync.replicas=?, not 2", "retention.ms=5, not 1000"),
        )
    ]


def test_the_catalogue_can_be_listed_without_a_broker() -> None:
    result = CliRunner().invoke(app, ["list"], env={"COLUMNS": "200"})

    assert result.exit_code == 0
    assert all(topic.name in result.output for topic in CATALOGUE)


def test_brokers_keep_the_offsets_of_a_stopped_group_as_long_as_the_longest_topic() -> None:
    longest = max(int(spec.config.get("retention.ms", 0)) for spec in specifications(Settings()))

    assert longest == OFFSETS_RETENTION_MINUTES * 60_000


@pytest.mark.parametrize("kept_minutes", [OFFSETS_RETENTION_MINUTES, OFFSETS_RETENTION_MINUTES + 1])
def test_brokers_that_keep_offsets_long_enough_cause_no_warning(kept_minutes: int) -> None:
    assert offsets_warning(kept_minutes) is None


@pytest.mark.parametrize(
    ("kept_minutes", "found"),
    [(10_080, "for 7 days (offsets.retention.minutes=10080). Set 525600 there"), (None, "do not say how long")],
)
def test_brokers_that_forget_offsets_sooner_or_do_not_say_cause_a_warning(kept_minutes: int | None, found: str) -> None:
    assert found in (offsets_warning(kept_minutes) or "")
